"""The search for alpha runs no more batches than it takes, and calibration holds one batch at a time."""

import itertools
import weakref

import numpy as np
import pytest
import torch

import fitprune.fitting.alpha_search
import fitprune.fitting.batches
import fitprune.search.runs
from fitprune import Calibration, fit
from fitprune.search.runs import drop_counts
from tests.support.models import build, prompt

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def model():
    return build("llama", 6, patch=2, seed=3, intermediate_size=256)


@pytest.fixture(scope="module")
def samples(model):
    return [prompt(model, [4, "image", 4 + seed % 5], seed) for seed in range(24)]


@pytest.fixture(scope="module")
def exhausted(model, samples):
    """For searches that run every batch at every alpha they look at, and so find there what another has run."""
    return Calibration(model, samples[:8], progress=False)


@pytest.mark.parametrize("reduction", [0.5, *(pytest.param(value, marks=pytest.mark.exhaustive) for value in (0.2, 0.8))])
def test_bounds_change_no_verdict(model, samples, exhausted, reduction, monkeypatch):
    """The alpha found is that of a search which runs every batch at every alpha it looks at."""
    found = Calibration(model, samples[:8], progress=False).recipe(reduction)

    def all_of_them(runs, step, spent):
        return spent(runs.left(step)) <= 1

    monkeypatch.setattr(fitprune.fitting.alpha_search, "_reaches", all_of_them)
    exhaustive = exhausted.recipe(reduction)
    assert found.drop == exhaustive.drop
    assert found.provenance["alpha"] == exhaustive.provenance["alpha"]


@pytest.mark.exhaustive
def test_a_search_takes_little_more_than_two_passes(model, samples, monkeypatch):
    """All samples at the alpha that is chosen, some at the next smaller, few elsewhere: a bisection runs all seven times."""
    done = []
    counts = fitprune.fitting.batches.counts
    monkeypatch.setattr(fitprune.fitting.batches, "counts", lambda *args: done.append(args[2]) or counts(*args))
    recipe = fit(model, samples, 0.5, progress=False)
    assert done.count(recipe.provenance["alpha"]) == len(samples)
    assert len(done) <= 2.25 * len(samples)


def test_a_run_scores_no_layer_whose_importances_are_known(model, samples, monkeypatch):
    """Nothing is pruned before the first layer: its importances are the unpruned model's, to the bit."""
    scored, given = [], []
    score, survive = fitprune.search.runs.cross_and_self, fitprune.search.runs.survivors
    monkeypatch.setattr(fitprune.search.runs, "cross_and_self", lambda *args: scored.append(score(*args)) or scored[-1])
    monkeypatch.setattr(fitprune.search.runs, "survivors", lambda *args: given.append(args[:2]) or survive(*args))
    dropped = drop_counts(model, samples[:1], 0.05)
    assert dropped.sum() > 0
    assert (len(scored), len(given)) == (6 + 5, 6)
    assert all(torch.equal(*pair) for pair in zip(given[0], scored[0], strict=True))


def test_a_run_computes_nothing_in_the_first_layer(model, samples):
    """Nothing is pruned before it: its output is kept from the unpruned model, which `drop_counts` runs first."""
    calibration = Calibration(model, samples[:3], progress=False)
    layers, projected = model.model.language_model.layers, []
    hooks = [
        part.register_forward_hook(lambda *_, index=index: projected.append(index))
        for index, layer in enumerate(layers)
        for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp)
    ]
    for step in (1, 40, 90):
        found = np.concatenate([calibration._batches.run(step, batch) for batch in range(3)])
        assert projected
        assert 0 not in projected
        projected.clear()
        assert np.array_equal(found, drop_counts(model, samples[:3], step / 128).numpy())
        assert found.any()
        assert projected.count(0) == 3 * 3  # batches, and parts of a layer
        projected.clear()
    for hook in hooks:
        hook.remove()
    assert "forward" not in vars(layers[0])


def test_batches_are_read_once_and_not_held(model, samples):
    """When a batch is asked for, those before the last one are gone; the last is let go when the search begins."""
    alive = []

    def batches():
        for sample in samples[:6]:
            fresh = {name: value.clone() for name, value in sample.items()}
            alive.append(weakref.ref(fresh["pixel_values"]))
            yield fresh
            del fresh
            assert not [reference for reference in alive[:-1] if reference() is not None]

    calibration = Calibration(model, batches(), progress=False)
    assert len(alive) == 6
    assert calibration.recipe(0.5).reduction >= 0.5
    assert not [reference for reference in alive if reference() is not None]


def tensors_held(calibration):
    """Bytes of tensors and arrays that a calibration holds in memory, those of its model left out."""
    todo, total, met = [calibration], 0, set()
    while todo:
        value = todo.pop()
        if id(value) in met:  # the calibration and its runs share arrays
            continue
        met.add(id(value))
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
        elif type(value).__module__.startswith("fitprune.fitting"):
            todo += [part for name, part in vars(value).items() if name != "model"]
        else:
            total += getattr(value, "nbytes", 0)
    return total


@pytest.mark.exhaustive
def test_memory_does_not_grow_with_what_a_sample_weighs(model, samples):
    """What stays per sample is a few numbers a layer: not its embeddings, pixels, or importances (here 144 tokens × 32)."""
    few = Calibration(model, samples[:6], progress=False)
    more = Calibration(model, samples[:12], progress=False)
    for calibration in (few, more):
        calibration.recipe(0.5)
    per_sample = (tensors_held(more) - tensors_held(few)) / 6
    # Two float masses a layer, and a count of 8 bytes a layer at each alpha looked at.
    looked_at = len({step for step, _ in more._runs.counts})
    assert per_sample <= 6 * 4 * 2 + 6 * 8 * looked_at + 16
    assert per_sample < samples[0]["pixel_values"].nbytes / 4


def test_provenance_says_where_a_recipe_comes_from(model, samples):
    origin = {"model": "some/model", "revision": "abc", "data": {"id": "mini", "digest": "123"}}
    recipe = Calibration(model, samples[:4], progress=False, origin=origin).recipe(0.5)
    record = recipe.provenance
    assert (record["model"], record["revision"], record["mode"]) == ("some/model", "abc", "sequential")
    assert record["data"] == {"id": "mini", "digest": "123", "samples": 4, "visual_tokens": 144, "text_tokens": 10}
    assert record["budget"]["asked"] == 0.5
    assert record["budget"]["reached"] == pytest.approx(recipe.reduction, abs=1e-6)
    assert set(record["versions"]) == {"fitprune-bench", "torch", "transformers"}


def test_the_digest_is_of_the_statistics(model, samples):
    one, again, other = (Calibration(model, some, progress=False).digest for some in (samples[:2], samples[:2], samples[1:3]))
    assert one == again != other
    assert len(one) == 32


def test_the_progress_bar_goes_to_stderr_and_counts_batches(model, samples, capsys):
    fit(model, samples[:2], 0.5, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "fit: statistics" in err
    assert "0/2" in err
    assert "fit: 50%" in err
    fit(model, samples[:2], 0.5, progress=False)
    assert capsys.readouterr() == ("", "")


def test_all_budgets_share_the_statistics(model, samples, monkeypatch):
    done = []
    measure = fitprune.fitting.batches.measure
    monkeypatch.setattr(fitprune.fitting.batches, "measure", lambda *args: done.append(1) or measure(*args))
    calibration = Calibration(model, samples[:3], progress=False)
    recipes = [calibration.recipe(reduction) for reduction in (0.3, 0.5, 0.7)]
    assert len(done) == 3
    assert all(sum(small.drop) < sum(large.drop) for small, large in itertools.pairwise(recipes))
    assert torch.is_inference_mode_enabled() is False
