"""What does it take to plan a large matrix of cells? CPU seconds, and how many dry runs of pruners.

    python -m tests.benchmarks.bench_plan [--suites 250] [--methods NAME …] [--plain]

LLaVA-1.5 7B and 13B, by their configurations, eight methods, 25 reductions and so many suites, 100 000 cells in all; suites
and their prompts are made up, of 20 to 150 text tokens, so that what is timed is planning, and no reading of data. `--plain`
makes a dry run for each cell, as a check: its figures must be the same.

Under a minute in all: 43 CPU-s on one core, 54 on one that others used too, and 3 s for their table. A cell by itself takes
0.25 ms. The rest is what each model, method and reduction take once: to solve the method, and for one to three dry runs.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from types import SimpleNamespace
from unittest import mock

import torch

from baselines.shared import dry_run
from harness.bench import identity, planning
from harness.cells import DENSE, Cell, CellSettings
from harness.models.facts import ModelFacts
from harness.models.registry import find_model
from harness.models.shipped import transformers_config
from harness.results.store import Store

MODELS = ("llava-1.5-7b", "llava-1.5-13b")
METHODS = ("random", "uniform", "fastv", "pyramiddrop", "sparsevlm", "dart", "visionzip", "fastervlm")
REDUCTIONS = [0.3 + 0.02 * step for step in range(25)]
KNOWN = {"metric": "m", "statistic": "mean", "task_code": "t", "data_digest": "d", "generation": {"dtype": "float16"}}


def prompts(suite: str) -> dict[str, torch.Tensor]:
    """Of one image and some text, of another length for each suite."""
    text = 20 + int(suite[1:]) * 37 % 131
    ids = torch.ones(1, text + 576, dtype=torch.long)
    ids[:, :576] = 32000
    return {"input_ids": ids, "pixel_values": torch.empty(1, 3, 336, 336, device="meta")}


def planned(cells: list[Cell], plain: bool = False) -> tuple[list[planning.Planned], float, int]:
    """The plan of cells in an empty folder, with the CPU seconds and the dry runs that it took."""
    facts = {name: ModelFacts(name, "r", "w", "float16", "cuda", transformers_config(find_model(name))) for name in MODELS}
    task = SimpleNamespace(rows=range(1000))
    dry = mock.Mock(side_effect=dry_run.plan)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(planning, "build_task", return_value=task),
        mock.patch.object(planning, "sample_inputs", lambda outline, suite, **given: iter([prompts(suite)])),
        mock.patch.object(planning.OutlineShelf, "outline", return_value=None),
        mock.patch.object(identity, "conditions", return_value=KNOWN),
        mock.patch.object(dry_run, "plan", dry),
        mock.patch.object(dry_run.Plans, "of", lambda plans, *tokens: dry(plans.pruner, plans.config, *tokens))
        if plain
        else mock.MagicMock(),
    ):
        planner = planning.Planner(CellSettings(), Store(folder), "cpu", facts=facts)
        since = time.process_time()
        found = planner.plan(cells)
        return found, time.process_time() - since, dry.call_count


def matrix(suites: int, methods: Sequence[str] | None = None) -> list[Cell]:
    """In the order in which a run has them."""
    kinds = [(DENSE, None), *((method, reduction) for method in methods or METHODS for reduction in REDUCTIONS)]
    return [Cell(model, *kind, f"s{suite}") for suite in range(suites) for model in MODELS for kind in kinds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=250)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cells = matrix(asked.suites, asked.methods)
    found, seconds, dry = planned(cells)
    print(f"{len(cells)} cells: {seconds:.1f} CPU-s, {1000 * seconds / len(cells):.2f} ms each; {dry} dry runs")
    since = time.process_time()
    lines = planning.lines_of(found)
    print(f"their table, {len(lines)} lines: {time.process_time() - since:.1f} CPU-s")
    if asked.plain:
        plain, seconds, dry = planned(cells, plain=True)
        print(f"a dry run for each cell: {seconds:.1f} CPU-s; {dry} dry runs; the same: {plain == found}")


if __name__ == "__main__":
    main()
