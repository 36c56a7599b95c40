"""Which cases of a product run by default, and that all of them run with every change."""

from itertools import combinations, product
from pathlib import Path

import pytest
import torch

from tests.support.built import built_once
from tests.support.models import build
from tests.support.products import selection

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[1]
FILE = """
import pytest
import torch

@pytest.mark.product(strength=2, without=lambda a, b, c: a == c == 0)
@pytest.mark.parametrize("c", range(2))
@pytest.mark.parametrize("b", [[], [1], [2]])
@pytest.mark.parametrize("a", range(3))
def test_all(a, b, c):
    pass

@pytest.mark.product(strength=2)
@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("c", range(3))
def test_joined(a, b, c):
    pass

@pytest.mark.releases
@pytest.mark.parametrize("a", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_some(a):
    pass
"""


def combined(cases, strength):
    return {part for case in cases for part in combinations(case.items(), strength)}


@pytest.mark.parametrize(("strength", "least"), [(1, 7), (2, 35), (3, 140)])
def test_the_selection_holds_what_all_cases_hold(strength, least):
    cases = [{"a": a, "b": b, "c": c} for a, b, c in product(range(7), range(5), range(4)) if (a, b) != (0, 0)]
    chosen = [cases[place] for place in selection(cases, strength)]
    assert combined(chosen, strength) == combined(cases, strength)
    assert len(chosen) <= 1.2 * least
    assert [cases[place] for place in selection(cases, strength)] == chosen


def test_values_take_turns():
    cases = [{"method": method, "model": model} for method, model in product(range(9), range(3))]
    assert sorted(cases[place]["model"] for place in selection(cases, 1)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.fixture
def run(pytester, monkeypatch):
    """The number of cases that run with these arguments."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.syspathinsert(ROOT)
    pytester.makeconftest("from tests.conftest import pytest_collection_modifyitems")
    marks = ["product: x", "exhaustive: x", "releases: x"]
    pytester.makeini("\n".join(["[pytest]", "addopts = --strict-markers", "markers =", *(f"    {mark}" for mark in marks)]))
    pytester.makepyfile(test_it=FILE)
    return lambda *words: pytester.runpytest_inprocess("-p", "no:fitprune-bench", *words).parseoutcomes()


def test_by_default_a_selection_runs_and_the_rest_where_it_is_asked_for(run):
    some, all_cases = run(), 3 * 3 * 2 + 4 * 3 + 2
    assert some["passed"] < 3 * 3 + 4 * 3 + 3
    assert some["passed"] + some["deselected"] == all_cases
    assert run("-m", "exhaustive")["passed"] == some["deselected"]
    assert run("-m", "exhaustive or not exhaustive") == {"passed": all_cases}
    assert run("-m", "releases")["passed"] == 2
    assert run("test_it.py::test_all") == {"passed": 18}
    assert run("-k", "joined") == {"passed": 12, "deselected": all_cases - 12}  # a and b vary together


def test_a_change_runs_both():
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "python -m tox run -e tests" in commands
    assert "python -m tox run -e tests -- -m exhaustive" in commands


def test_a_model_that_is_built_twice_is_the_same_and_shares_nothing():
    first = build("llama-gqa", 2, seed=11)
    draws = torch.rand(3)
    second = build("llama-gqa", 2, seed=11)
    assert torch.equal(draws, torch.rand(3))
    drawn = build.__wrapped__("llama-gqa", 2, seed=11)
    assert second.config.to_dict() == drawn.config.to_dict()
    assert second.config is not first.config
    assert second.config.text_config is second.model.language_model.config
    assert [*second.state_dict()] == [*drawn.state_dict()]
    assert all(map(torch.equal, second.state_dict().values(), drawn.state_dict().values()))
    places = [{tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]} for model in (first, second)]
    assert not places[0] & places[1]
    with torch.no_grad():
        first.lm_head.weight.zero_()
    assert build("llama-gqa", 2, seed=11).lm_head.weight.any()


def test_other_arguments_are_another_model():
    asked = []

    @built_once
    def build(*arguments, **options):
        asked.append((arguments, options))
        return arguments, options

    assert [build(1), build(1), build("1"), build(1, a={}), build(a={}, b=2), build(b=2, a={})][-1] == ((), {"a": {}, "b": 2})
    assert len(asked) == 4
