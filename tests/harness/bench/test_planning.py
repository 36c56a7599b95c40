"""A large matrix is planned with few dry runs, and says what it would say with one for each cell."""

from harness.pruners.of_cells import CellPruners
from tests.benchmarks import bench_plan


def test_a_plan_solves_each_pruner_once_and_makes_few_dry_runs(monkeypatch):
    """Two methods on four suites: one looks into the tower and sees no text, the other's scoring is a line in the text."""
    plain, solved = CellPruners.of, []
    monkeypatch.setattr(CellPruners, "of", lambda self, cell, facts: solved.append(cell) or plain(self, cell, facts))
    monkeypatch.setattr(bench_plan, "METHODS", ("fastv", "visionzip"))
    monkeypatch.setattr(bench_plan, "MODELS", ("llava-1.5-7b",))
    monkeypatch.setattr(bench_plan, "REDUCTIONS", (0.5,))
    cells = [cell for cell in bench_plan.matrix(132) if cell.suite in ("s0", "s7", "s8", "s131")]
    found, _, dry = bench_plan.planned(cells)
    assert dry == 1 + 2
    assert len([cell for cell in solved if not cell.is_dense]) == 2
    assert [plan.cell for plan in found] == cells
    again, _, dry = bench_plan.planned(cells, plain=True)
    assert dry == 8
    assert again == found


def test_cells_in_any_order_are_planned_model_by_model(monkeypatch):
    monkeypatch.setattr(bench_plan, "METHODS", ())
    cells = sorted(bench_plan.matrix(3), key=lambda cell: cell.suite)
    made = []
    plain = bench_plan.prompts
    monkeypatch.setattr(bench_plan, "prompts", lambda suite: made.append(suite) or plain(suite))
    found, _, _ = bench_plan.planned([*cells, *cells])
    assert [plan.cell for plan in found] == [*cells, *cells]
    assert made == ["s0", "s1", "s2"] * 2
