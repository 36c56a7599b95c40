"""The key of a composed pruner covers the code and the parameters of all its parts."""

import pytest

from baselines.controls.random_pruning import Random
from baselines.controls.uniform import Uniform
from fitprune import Composed, FitPrune, Recipe
from harness.cells import Cell
from harness.results import key, sources
from harness.results.key import content_key
from harness.results.sources import code_digest, code_of


def record(pruner):
    fields = {**dict.fromkeys(key.KEY_FIELDS, ""), "generation": {}, "versions": {}}
    return {**fields, "pruner": pruner.name, "code": code_of(pruner), "params": pruner.params()}


def test_a_single_pruners_code_is_its_class():
    assert code_of(Random(0.5)) == code_digest(Random)


@pytest.mark.parametrize("part", [Random, Uniform])
def test_a_part_whose_code_changes_changes_the_code(part, monkeypatch):
    pruner, real = Composed([Random(0.5), Uniform(0.5)]), code_digest
    before = code_of(pruner)
    monkeypatch.setattr(sources, "code_digest", lambda method: "changed" if method is part else real(method))
    assert code_of(pruner) != before


@pytest.mark.parametrize(
    "other",
    [
        [Random(0.4), Uniform(0.5)],
        [Random(0.5), Uniform(0.4)],
        [Uniform(0.5), Random(0.5)],
        [Random(0.5, positions="repacked"), Uniform(0.5)],
        [Random(0.5)],
    ],
)
def test_other_parts_are_another_cell(other):
    assert content_key(record(Composed(other))) != content_key(record(Composed([Random(0.5), Uniform(0.5)])))


def test_when_a_recipe_was_fitted_is_no_part_of_the_key():
    fitted = [Recipe([1, 2], 36, provenance={"date": date}) for date in ("2026-01-01", "2026-02-02")]
    keys = {content_key(record(Composed([Random(0.5), FitPrune(recipe)]))) for recipe in fitted}
    assert len(keys) == 1
    assert content_key(record(Composed([Random(0.5), FitPrune(Recipe([2, 1], 36))]))) not in keys


def test_a_cell_needs_a_fit_where_one_part_is_fitprune():
    assert Cell("m", "visionzip+fitprune", 0.7, "pope").needs_fit
    assert Cell("m", "fitprune", 0.7, "pope").needs_fit
    assert not Cell("m", "visionzip+fastv", 0.7, "pope").needs_fit
    assert Cell("m", "visionzip+fitprune", 0.7, "pope").label() == "m-visionzip+fitprune-0.7"
