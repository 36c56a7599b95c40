"""Greedy choices by Triton's kernels and by torch, against the literal rules, ties included."""

from types import SimpleNamespace

import pytest
import torch

from baselines.before_decoder import divprune as divprune_file
from baselines.before_decoder import gprune as gprune_file
from baselines.before_decoder import scope as scope_file
from baselines.shared.choosing import greedy, rounds
from tests.reference.cdpruner import cdpruner
from tests.reference.divprune import divprune
from tests.reference.mmtok import covering
from tests.reference.scope import scope
from tests.reference.vispruner import vispruner
from tests.support import triton_runs
from tests.support.greedy_cases import CASES, IMPORTANT, PER_ROUND, chosen, cover, inputs
from tests.support.triton_runs import TRITON

pytestmark = pytest.mark.releases
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
METHODS = ("divprune", "divprune in parts", "scope", "mmtok", "cdpruner", "cdpruner in parts", "vispruner")
# A pick that leads by less may change with rounding, where arithmetic is not exact.
CLEAR = 1e-6


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    return triton_runs.interpreted(tmp_path_factory)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return triton_runs.compiled(tmp_path_factory)


def literal(method, case):
    """The indices kept of each sample."""
    features, salience, present, keep = inputs(case)
    kept = []
    for row, count in enumerate(keep.tolist()):
        own = present[row].nonzero().flatten()
        seen, weight, lead = features[row, own], salience[row, own], 1
        if method == "scope":
            picks, lead = scope(seen, weight, count)
        elif method == "mmtok":
            picks, lead = covering(cover(features)[row][:, own].tolist(), count)
        elif method.startswith("cdpruner"):
            picks, lead = cdpruner(seen, (weight / weight.max()).tolist(), count) if count else ([], 1)
        elif method == "vispruner":
            picks = vispruner(weight, seen, count, IMPORTANT, per_round=PER_ROUND)
        else:
            picks, lead = divprune(seen, count / max(len(own), 1))
        assert case.ties or lead > CLEAR
        kept.append(own[picks].tolist())
    return kept


def check(found, method, case):
    if method.startswith("cdpruner") and case.ties:
        # Determinants are not exact. Torch's choice is that of `test_cdpruner.py`.
        assert torch.equal(found, chosen(case)[method])
        return
    assert [row.nonzero().flatten().tolist() for row in found] == literal(method, case)


@TRITON
@pytest.mark.exhaustive
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_the_interpreted_kernel_is_the_literal_rule(name, method, interpreted):
    check(interpreted[f"{method} {name}"], method, CASES[name])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_torch_is_the_literal_rule(name, method):
    check(chosen(CASES[name])[method], method, CASES[name])


def test_the_cases_have_ties():
    """Some picks are of equals, so that it matters which of them comes first."""
    features, _, present, _ = inputs(CASES["ties"])
    first = features[0, present[0]]
    assert len(first.unique(dim=0)) < 0.8 * len(first)


@TRITON
@pytest.mark.exhaustive
def test_the_kernels_compile_for_a_card_that_is_not_here(compiled):
    assert len(compiled["greedy"]) >= len(METHODS)
    assert max(compiled["greedy"]) <= 99 * 1024


@pytest.mark.parametrize(("tokens", "by"), [(greedy.LONGEST, "kernel"), (greedy.LONGEST + 1, "torch")])
def test_a_prompt_too_long_for_a_kernel_is_left_to_torch(monkeypatch, tokens, by):
    pytest.importorskip("triton")
    monkeypatch.setattr(greedy, "triton_runs", lambda values: values.is_cuda)
    kernels = greedy.kernels_for(SimpleNamespace(shape=(1, tokens), is_cuda=True))
    assert (kernels is None) == (by == "torch")
    assert greedy.kernels_for(torch.empty(1, 2, 2)) is None


def test_where_a_kernel_runs_it_chooses(monkeypatch):
    """A stub that chooses the first tokens."""
    asked = []

    def first(name):
        return lambda matrix, *given: asked.append((name, tuple(matrix.shape))) or torch.arange(matrix.shape[-1]) < 3

    stub = SimpleNamespace(**{name: first(name) for name in ("farthest", "covering", "spanning", "distinct")})
    for module in (greedy, rounds):
        monkeypatch.setattr(module, "kernels_for", lambda matrix: stub)
    found = chosen(CASES["padded"])
    assert {name: shape for name, shape in asked if shape[1] != 5} == {
        "farthest": (4, 40, 40),
        "covering": (4, 14, 40),
        "spanning": (4, 40, 40),
        "distinct": (4, 35, 35),
    }
    assert ("covering", (4, 40, 40)) in asked
    # Distances of so many tokens at a time; the host asks once more, and nothing has moved.
    assert [shape for name, shape in asked if shape[1] == 5] == [(4, 5, 40)] * greedy.ROUNDS
    for method in ("scope", "mmtok", "cdpruner"):
        assert found[method].tolist() == [index < 3 for index in range(40)]


def test_a_choice_takes_features_that_a_gradient_is_wanted_of():
    features = torch.randn(1, 1100, 4, requires_grad=True) * 1
    present, keep = torch.ones(1, 1100, dtype=torch.bool), torch.tensor([2])
    assert int(divprune_file.farthest(features, present, keep).sum()) == 2
    assert int(scope_file.covering(features[:, :50], features[:, :50, 0].exp(), present[:, :50], keep).sum()) == 2
    assert not gprune_file.flow(features, present, 0.5, 0.03, 1).requires_grad


@CUDA
@TRITON
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_on_cuda_the_kernel_is_the_literal_rule(name, method):
    check(chosen(CASES[name], "cuda")[method].cpu(), method, CASES[name])
