"""How long does an evaluation take, against lmms-eval's own `llava_hf` on the same questions? Ratios within one run.

    python -m tests.benchmarks.bench_evaluation [--model llava-tiny] [--suite gqa] [--limit 200] [--batch-size 16]

Both go through lmms-eval's evaluator with the same weights, in turn, nothing pruned, the models loaded beforehand.
`llava_hf` is taken as it is, one question at a time. Beside it stand a run's first cell of a model and suite, and a later
one, for which the first has left its inputs and encoded images. Then where the time of the first cell goes.
"""

import argparse
import importlib.util
import sys
import tempfile
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from tabulate import tabulate

from fitprune import FitPruneError
from harness.bench.shelf import Shelf
from harness.models.loading import LoadedModel
from harness.tasks.build import build_task, task_manager
from harness.tasks.isolation import contained, lmms_eval_evaluator, quiet
from harness.tasks.specs import find_suite
from tests.support.evaluating import evaluate_cell

# What `harness.models.prompting.chat` writes around one image and a question; llava_hf puts "<image>\n" before the question.
TEMPLATE = "{% for message in messages %}USER: {{ message['content'] }} {% endfor %}ASSISTANT:"

# Functions that tell what a thread is at, the first one that is on its stack.
WORK = {
    "get_image_features": "vision tower",
    "_prefill": "prompts in the decoder",
    "_sample": "tokens decoded",
    "prepare": "images and prompts made ready",
    "generate_until": "batching, journal, answers",
    "evaluate_cell": "lmms-eval: tasks, scores",
}


def llava_hf(loaded: LoadedModel) -> Any:
    """lmms-eval's class on the same weights."""
    if importlib.util.find_spec("decord") is None:  # it reads videos, of which there are none
        sys.modules.setdefault("decord", types.SimpleNamespace(VideoReader=None, cpu=None))  # type: ignore[arg-type]
    lmms_eval_evaluator()
    with quiet():
        from lmms_eval.models.simple.llava_hf import LlavaHf

        model = LlavaHf(str(loaded.model.name_or_path), device="cpu", device_map="cpu", chat_template=TEMPLATE)
    model.clean = lambda: None  # which would drop the weights
    return model


def theirs(model: Any, suite: str, limit: int) -> list[str]:
    """What `llava_hf` answers, by doc_id."""
    task = build_task(suite, "mini", limit)
    with contained(), tempfile.TemporaryDirectory() as folder, quiet():
        results = lmms_eval_evaluator().simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=task_manager(suite),
            bootstrap_iters=0,
            cli_args=argparse.Namespace(output_path=folder, process_with_media=False),
        )
    samples = sorted(results["samples"][find_suite(suite).task], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0].strip() for sample in samples]


class Ours:
    """What a dense cell does in a run."""

    def __init__(self, suite: str, limit: int, batch_size: int) -> None:
        self.suite, self.limit, self.batch_size = suite, limit, batch_size
        self.shelf = Shelf("cpu")

    def ask(self, loaded: LoadedModel) -> list[str]:
        """Its answers, by doc_id."""
        options = {"limit": self.limit, "batch_size": self.batch_size, "cache": self.shelf.inputs}
        with self.shelf.remembering(loaded):
            answers = evaluate_cell(loaded, None, self.suite, **options)
        return [answer.answer for answer in answers.answers]


def timed(work: Callable[[], list[str]]) -> tuple[float, float, list[str]]:
    """Seconds of wall clock, of processor time in all threads, and the answers."""
    wall, used = time.perf_counter(), time.process_time()
    answers = work()
    return time.perf_counter() - wall, time.process_time() - used, answers


@contextmanager
def watched(shares: Counter[str]) -> Iterator[None]:
    """Inside, every thread's processor time is added to what it is found at, some hundred times a second."""
    over, spent = threading.Event(), dict[int, float]()

    def watch() -> None:
        while not over.wait(0.005):
            for ident, frame in sys._current_frames().items():
                if ident == threading.get_ident():
                    continue
                now, names = time.clock_gettime(time.pthread_getcpuclockid(ident)), set[str]()
                while frame is not None:
                    names.add(frame.f_code.co_name)
                    frame = frame.f_back
                found = next((WORK[name] for name in WORK if name in names), None)
                if found:
                    shares[found] += now - spent.get(ident, now)
                spent[ident] = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def main() -> None:
    """Print both tables, with what they were measured on."""
    parser = argparse.ArgumentParser(description="Time of an evaluation against lmms-eval's llava_hf.")
    parser.add_argument("--model", default="llava-tiny", help="a LLaVA-1.5: a registry name, hub id or local folder")
    parser.add_argument("--suite", default="gqa")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    taken: dict[str, list[tuple[float, float, list[str]]]] = {"llava_hf": [], "first cell": [], "later cell": []}
    try:
        loaded = Shelf("cpu").model(arguments.model)
        other = llava_hf(loaded)
        Ours(arguments.suite, 2 * arguments.batch_size, arguments.batch_size).ask(loaded)  # warm-up
        theirs(other, arguments.suite, 4)
        for _ in range(arguments.repeats):
            taken["llava_hf"].append(timed(lambda: theirs(other, arguments.suite, arguments.limit)))
            ours = Ours(arguments.suite, arguments.limit, arguments.batch_size)
            for name in ("first cell", "later cell"):
                taken[name].append(timed(lambda ours=ours: ours.ask(loaded)))
        shares: Counter[str] = Counter()
        with watched(shares):
            Ours(arguments.suite, arguments.limit, arguments.batch_size).ask(loaded)
    except FitPruneError as error:
        parser.error(str(error))
    rows = []
    for name, runs in taken.items():
        row = [name]
        for clock in (0, 1):
            ratio = median(base[clock] / run[clock] for base, run in zip(taken["llava_hf"], runs, strict=True))
            row += [f"{1e3 * median(run[clock] for run in runs) / arguments.limit:.1f} ms", f"{ratio:.2f}×"]
        rows.append([*row, sum(a != b for a, b in zip(taken["llava_hf"][0][2], runs[0][2], strict=True))])
    threads = torch.get_num_threads()
    print(
        f"{arguments.model}, {arguments.suite}, {arguments.limit} questions, batch {arguments.batch_size} (llava_hf: 1), "
        f"{threads} thread{'s' if threads > 1 else ''}; per question, medians of {arguments.repeats}\n"
    )
    header = ["", "wall", "faster", "processor", "faster", "answers that differ"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True), "\n")
    parts = [[name, f"{share / shares.total():.1%}"] for name, share in shares.most_common()]
    print(tabulate(parts, ["first cell", "of its processor time"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
