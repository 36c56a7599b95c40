"""Cells that share a bench, with its inputs and encoded images, give what each gives alone."""

import pytest

from fitprune.models.parts import model_parts
from harness.bench.bench import Bench
from harness.cells import Cell, CellSettings
from harness.results.once import RunFolder

METHODS = ["random", "visionzip", "fastv", "tome", "downsample"]


@pytest.mark.exhaustive
def test_a_shared_bench_changes_no_answer_and_encodes_each_image_once(tmp_path):
    cells = [Cell("llava-tiny", "dense", None, "textvqa")]
    cells += [Cell("llava-tiny", name, 0.6, "textvqa") for name in METHODS]
    passes = []

    def bench(name):
        made = Bench(CellSettings(limit=16, batch_size=8), RunFolder(tmp_path / name), device="cpu")
        tower = model_parts(made.shelf.model("llava-tiny").model).tower
        tower.register_forward_hook(lambda *_: passes.append(name))
        return made

    def evaluated(made, cell):
        return made.evaluation.evaluate(made.resolver.resolve(cell))

    shared = bench("shared")
    together = [evaluated(shared, cell) for cell in cells]
    alone = [evaluated(bench(cell.pruner), cell) for cell in cells]
    for one, other in zip(together, alone, strict=True):
        assert one.answers.answers == other.answers.answers
        assert (one.flops, one.reduction, one.tokens_per_layer) == (other.flops, other.reduction, other.tokens_per_layer)
    # Two batches: once for all, once more for the first method that looks into the tower, and for each that changes it.
    assert passes.count("shared") == 2 + 2 + 2 * 2
    assert len(passes) - passes.count("shared") == 2 * len(cells)
