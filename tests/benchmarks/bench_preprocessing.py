"""Does the model wait for images? Shares of the wall time of an evaluation, without and with preparing ahead.

    python -m tests.benchmarks.bench_preprocessing [--model NAME] [--suite gqa] [--data mini] [--batch-size 8] [--limit 200]

- model: the model generates, and its answers are decoded;
- preparing: images are decoded, scaled and normalised, prompts tokenized; ahead, this runs beside the model;
- waiting: the model stands still because its next batch is not ready: a GPU's idle share.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from tabulate import tabulate

from fitprune import FitPruneError
from harness.models.loading import LoadedModel, load_model
from harness.tasks.build import build_task
from harness.tasks.isolation import lmms_eval_evaluator, quiet

lmms_eval_evaluator()  # before the module below, which imports lmms-eval

from harness.answering.lmms_model import LOOK_AHEAD, FitPruneLMM  # noqa: E402


class Timed(FitPruneLMM):
    """Adds up the seconds of both sides."""

    preparing = answering = 0.0

    def prepare(self, batch: list) -> Any:
        started = time.perf_counter()
        prepared = super().prepare(batch)
        self.preparing += time.perf_counter() - started
        return prepared

    def _answer(self, batch: Any) -> list:
        started = time.perf_counter()
        answers = super()._answer(batch)  # the answers' text is on the CPU, so the device is done
        self.answering += time.perf_counter() - started
        return answers


def run(loaded: LoadedModel, suite: str, data: str, limit: int, batch_size: int, look_ahead: int) -> list[float]:
    """Seconds of one evaluation: wall, model, preparing, waiting."""
    task = build_task(suite, data, limit)
    model = Timed(loaded, batch_size=batch_size, look_ahead=look_ahead)
    model.task_dict[task.config.task] = task.dataset
    with quiet():
        task.build_all_requests()
    started = time.perf_counter()
    model.generate_until(task.instances)
    wall = time.perf_counter() - started
    return [wall, model.answering, model.preparing, wall - model.answering]


def row(title: str, runs: Sequence[Sequence[float]]) -> list[str]:
    """Medians over repeats: seconds, and shares of the wall time."""
    walls = median(seconds[0] for seconds in runs)
    shares = [median(seconds[part] / seconds[0] for seconds in runs) for part in (1, 2, 3)]
    return [title, f"{walls:.2f} s", *(f"{share:.1%}" for share in shares)]


def main() -> None:
    """Print the table, with what it was measured on."""
    parser = argparse.ArgumentParser(description="Shares of an evaluation's wall time: model, preparing, waiting.")
    parser.add_argument("--model", default="llava-tiny", help="a registry name, hub id or local folder")
    parser.add_argument("--suite", default="gqa")
    parser.add_argument("--data", default="mini")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device")
    arguments = parser.parse_args()
    try:
        loaded = load_model(arguments.model, device=arguments.device)
        options = (loaded, arguments.suite, arguments.data, arguments.limit, arguments.batch_size)
        run(*options, 0)  # warm-up
        depths = {"one after the other": 0, f"{LOOK_AHEAD} batches ahead": LOOK_AHEAD}
        rows = [row(title, [run(*options, depth) for _ in range(arguments.repeats)]) for title, depth in depths.items()]
    except FitPruneError as error:
        parser.error(str(error))
    print(
        f"{arguments.model}, {loaded.device}, {torch.get_num_threads()} threads, {loaded.dtype}, {arguments.suite}, "
        f"{arguments.limit} questions, batch {arguments.batch_size}; medians of {arguments.repeats}\n"
    )
    print(tabulate(rows, ["", "wall", "model", "preparing", "waiting"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
