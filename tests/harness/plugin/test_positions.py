"""`--positions`: what is asked for runs, once, whatever a method's authors do on the model."""

import itertools
import re
from types import SimpleNamespace

import pytest

from baselines.registry import CLASS_PATHS, get_pruner_class
from fitprune.errors import UnsupportedModel
from harness.cells import Cell, CellSettings
from harness.models.registry import find_model
from harness.models.shipped import transformers_config
from harness.plugin.options import RunOptions
from harness.plugin.parametrize import cells_of
from harness.pruners.of_cells import CellPruners
from tests.support.methods import one_a_kind

pytest_plugins = ["pytester", "tests.support.suite_runs"]

ASKED = [asked for count in (1, 2, 3) for asked in itertools.permutations(("authors", "kept", "repacked"), count)]
AXES = "qwen2.5-vl-7b"


def options(model, pruner, asked):
    given = {"max_drop": None, "results": "r", "device": None, "recipe": "", "settings": CellSettings()}
    return RunOptions(models=(model,), pruners=(pruner,), reductions=(0.5,), positions=asked, **given)


def own(pruner, model):
    """What a method's own code makes of position ids, of the object that it is solved to."""
    config = transformers_config(find_model(model))
    made = get_pruner_class(pruner).for_reduction(config, 0.5, visual_tokens=300)
    return made.positions


@pytest.mark.parametrize("pruner", one_a_kind(name for name in CLASS_PATHS if name not in ("dense", "fitprune")))
def test_every_choice_runs_once_with_every_method(pruner):
    as_authors = own(pruner, "llava-1.5-7b")
    for asked in ASKED:
        cells = cells_of(options("llava-1.5-7b", pruner, asked), "gqa")
        meant = [as_authors if positions == "authors" else positions for positions in asked]
        run = [cell.positions or as_authors for cell in cells]
        assert run == list(dict.fromkeys(meant)), asked
        assert ("" in [cell.positions for cell in cells]) == (as_authors in meant)
        assert len(set(cells)) == len(cells)


def test_of_a_model_with_positions_on_axes_the_authors_choice_is_another_one():
    assert own("divprune", AXES) == "kept"
    assert own("divprune", "llava-1.5-7b") == "repacked"
    for asked, cells in (
        (("kept",), [""]),
        (("authors", "kept"), [""]),
        (("repacked",), ["repacked"]),
        (("authors", "repacked"), ["", "repacked"]),
    ):
        assert [cell.positions for cell in cells_of(options(AXES, "divprune", asked), "gqa")] == cells


@pytest.mark.parametrize(
    ("pruner", "own_choice"),
    [("fitprune", "kept"), ("random+fastv", "kept"), ("visionzip+fastv", ""), ("divprune+pyramiddrop", "repacked")],
)
def test_methods_in_sequence_have_a_choice_where_they_agree(pruner, own_choice):
    cells = [cell.positions for cell in cells_of(options("llava-1.5-7b", pruner, ("authors", "kept", "repacked")), "gqa")]
    assert cells == ["", *(choice for choice in ("kept", "repacked") if choice != own_choice)]


def test_ids_that_cannot_be_numbered_anew_are_refused_by_name_before_any_model_is_loaded():
    facts = SimpleNamespace(config=transformers_config(find_model(AXES)), name=AXES)
    pruners = CellPruners(CellSettings(), SimpleNamespace(typical_tokens=lambda *_: 300))
    assert pruners.of(Cell(AXES, "divprune", 0.5, "gqa"), facts).positions == "kept"
    said = "qwen2_5_vl has position ids on three axes, which cannot be numbered anew; use positions='kept'."
    for pruner in ("divprune", "fastv"):
        with pytest.raises(UnsupportedModel, match=f"^{re.escape(said)}$"):
            pruners.of(Cell(AXES, pruner, 0.5, "gqa", positions="repacked"), facts)
    for pruner in ("pyramiddrop", "divprune+fastv"):
        with pytest.raises(UnsupportedModel):
            pruners.of(Cell(AXES, pruner, 0.5, "gqa", positions="repacked"), facts)


def test_repacked_as_typed_collects_a_cell_of_a_method_whose_authors_repack(run):
    result = run("--collect-only", "-q", "--pruner", "visionzip,fastv", "--reduction", "0.5", "--positions", "repacked")
    cells = [line.rpartition("[m-")[2] for line in result.outlines if "::" in line]
    assert cells == ["visionzip-0.5]", "fastv-0.5-ids-repacked]"]
