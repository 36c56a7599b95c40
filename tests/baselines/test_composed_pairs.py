"""Pruners one after the other against the literal rules, one after the other; and what holds for every pair."""

import hashlib

import pytest
import torch

from baselines.before_decoder.divprune import DivPrune
from baselines.before_decoder.visionzip import VisionZip
from baselines.before_decoder.vispruner import VisPruner
from baselines.between_layers.dart import DART
from baselines.between_layers.fastv import FastV
from baselines.between_layers.pyramiddrop import PyramidDrop
from baselines.between_layers.sparsevlm import SparseVLM
from baselines.controls.dense import Dense
from baselines.controls.pool import Pool
from baselines.controls.random_pruning import Random
from baselines.controls.uniform import Uniform
from baselines.in_tower.tome import ToMe
from baselines.registry import PRUNERS
from fitprune import Composed, FitPrune, FitPruneError, Recipe, UnsupportedModel
from fitprune.models.images import pixel_bytes
from tests.reference import composed as literal
from tests.support import families
from tests.support.methods import IN_CLIP, ON_IMAGES, one_a_kind
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
RECIPE = Recipe([3, 5, 0, 4], 18)
STAGES, RATIOS = (1, 2, 3), (0.7, 0.5, 0.3)
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


def pairs(model, sample, gaps, made):
    """Name -> the pruners, and their literal parts."""
    zipping, removing = VisionZip(200, 120, layer=-1), VisPruner(320, layer=-1)
    fit, fast = literal.fitprune(RECIPE, gaps), literal.fastv(2, 0.4, gaps)
    return {
        "visionzip+fitprune": ([zipping, FitPrune(RECIPE)], [literal.visionzip(model, sample, zipping, made), fit]),
        "divprune+fastv": ([DivPrune(0.6), FastV(2, 0.4)], [literal.divprune(0.6, gaps), fast]),
        "vispruner+pyramiddrop": (
            [removing, PyramidDrop(STAGES, RATIOS)],
            [literal.vispruner(model, sample, removing), literal.pyramiddrop(STAGES, RATIOS, gaps)],
        ),
        "tome+fitprune": ([ToMe([7, 5]), FitPrune(RECIPE)], [literal.tome(model, sample, [7, 5]), fit]),
        "pool+fastv": ([Pool(4, 5), FastV(2, 0.4)], [literal.pool(4, 5), fast]),
        # Both drop in a layer, by its one attention; what the first dropped is no visual row to the second.
        "fitprune+fitprune": (
            [FitPrune(RECIPE), FitPrune(Recipe([2, 4, 1, 0], 18))],
            [fit, literal.fitprune(Recipe([2, 4, 1, 0], 18), gaps)],
        ),
        # FastV's scores outlive what FitPrune drops after the attention that they are of.
        "fastv+fitprune": ([FastV(2, 0.4), FitPrune(RECIPE)], [fast, fit]),
        "fitprune+fastv": ([FitPrune(RECIPE), FastV(2, 0.4)], [fit, fast]),
        # Ids repacked, then kept, then repacked again.
        "pyramiddrop+fitprune": (
            [PyramidDrop(STAGES, RATIOS), FitPrune(RECIPE)],
            [literal.pyramiddrop(STAGES, RATIOS, gaps), fit],
        ),
        "fitprune+divprune": ([FitPrune(RECIPE), DivPrune(0.6)], [literal.divprune(0.6, gaps), fit]),
    }


def against_the_literal_rules(model, sample, name, **wishes):
    gaps, made = [], []
    pruners, parts = pairs(model, sample, gaps, made)[name]
    for part in parts:
        part.repack &= not wishes
    expected = literal.run(model, sample, parts, 4, made)
    assert min([*gaps, expected.closest], default=1) > 1e-5, "the random model has a near-tie: choose another seed"
    with torch.no_grad(), Composed(pruners, **wishes)(model) as trace:
        output = model(**sample)
        tokens = new_tokens(model, sample, 4)[0].tolist()
    assert kept(trace) == expected.kept
    assert [cache_of(output).get_seq_length(layer) for layer in range(4)] == expected.kv_lengths
    assert float((output.logits[0] - expected.logits).abs().max() / expected.logits.abs().max()) < 1e-5
    assert tokens == expected.tokens


NAMES = list(pairs(None, None, [], []))
IN_TOWER = {"visionzip+fitprune", "vispruner+pyramiddrop", "tome+fitprune", "pool+fastv"}


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("parts", PARTS[:3], ids=["one", "first", "two"])
@pytest.mark.parametrize("decoder", ["llama", "llama-gqa", "mistral", "qwen2"])
@pytest.mark.parametrize("name", NAMES)
def test_on_llava(name, decoder, parts):
    model = build(decoder, 4, seed=2)
    against_the_literal_rules(model, prompt(model, parts, 5), name)


TILED = ["w1 w2", (30, 20), "w3 w4 w5 w6"]


def refused(name, family, wishes):
    """Positions on three axes cannot be numbered anew."""
    repacks = any(part.repack for part in pairs(None, None, [], [])[name][1])
    return family in families.ON_AXES and repacks and not wishes


@pytest.mark.product(strength=1, without=lambda name, family, decoder, wishes: refused(name, family, wishes))
@pytest.mark.parametrize("wishes", [{}, {"positions": "kept"}], ids=["own", "kept"])
@pytest.mark.parametrize(("family", "decoder"), families.DECODED)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in IN_TOWER])
def test_on_other_families(name, family, decoder, wishes):
    model = families.build(family, 4, decoder=decoder, seed=1)
    sample = families.inputs(families.processor(family), [TILED])
    if refused(name, family, wishes):
        with pytest.raises(UnsupportedModel, match=r"^[^\n]*use positions='kept'[^\n]*$"):
            against_the_literal_rules(model, sample, name)
        return
    against_the_literal_rules(model, sample, name, **wishes)


@pytest.mark.parametrize("name", ["visionzip+fitprune", "vispruner+pyramiddrop"])
def test_on_tiles(name):
    model = families.build("llava_next", 4, seed=1)
    against_the_literal_rules(model, families.inputs(families.processor("llava_next"), [TILED]), name)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
@pytest.mark.parametrize("name", sorted(IN_TOWER))
def test_a_tower_that_one_of_them_cannot_work_with_is_refused(name, family):
    model = families.build(family, 4)
    with pytest.raises(FitPruneError, match=r"^[^\n]+$"), Composed(pairs(None, None, [], [])[name][0])(model):
        pass


def drawn(sample, ratio, of):
    """Which of `of` tokens a sample's draw drops nothing of: the seed is that of the prompt, the picture and, later, `of`."""
    digest = hashlib.blake2b(b"0", digest_size=8)
    digest.update(sample["input_ids"][0].numpy().tobytes())
    if of != 36:
        digest.update(f"of {of}".encode())
    digest.update(pixel_bytes(sample["pixel_values"][0]))
    seed = int.from_bytes(digest.digest(), "little") >> 1
    score = torch.rand(of, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sorted(score.argsort(stable=True)[round(of * ratio) :].tolist())


def test_two_draws_of_one_seed():
    model = build("llama", 2, seed=1)
    sample = prompt(model, [3, "image", 5])
    with torch.no_grad(), Composed([Random(0.5), Random(0.5)])(model) as trace:
        model(**sample)
    first = drawn(sample, 0.5, 36)
    assert kept(trace) == [[first[index] for index in drawn(sample, 0.5, 18)]] * 2


@pytest.mark.parametrize(("family", "decoder"), families.DECODED)
def test_random_after_random_on_other_families(family, decoder):
    model = families.build(family, 3, decoder=decoder, seed=1)
    sample = families.inputs(families.processor(family), [TILED])
    with torch.no_grad(), Composed([Random(0.4), Random(0.3)])(model) as trace:
        output = model(**sample)
    total, survivors = int(trace.visual_tokens), kept(trace)[0]
    left = total - round(total * 0.4)
    assert len(survivors) == left - round(left * 0.3)
    with torch.no_grad(), Random(0.4)(model) as alone:
        model(**sample)
    assert set(survivors) < set(kept(alone)[0])
    expected = literal.run(model, sample, [literal.once(lambda here, names: [(name, None) for name in survivors], False)])
    assert float((output.logits[0] - expected.logits).abs().max() / expected.logits.abs().max()) < 1e-5


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*NAMES, "random+uniform", "uniform+dart", "sparsevlm+fitprune", "fitprune+sparsevlm"])
def test_a_batch_gives_what_its_samples_give_one_by_one(name, side):
    model = build("llama-gqa", 4, seed=2)
    further = {
        "random+uniform": [Random(0.3), Uniform(0.4)],
        "uniform+dart": [Uniform(0.3), DART(2, 12, visual_tokens=36)],
        "sparsevlm+fitprune": [SparseVLM(192, (0, 1, 2)), FitPrune(RECIPE)],
        "fitprune+sparsevlm": [FitPrune(RECIPE), SparseVLM(192, (0, 1, 2))],
    }
    pruner = Composed(further[name] if name in further else pairs(None, None, [], [])[name][0])
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    together = batch(samples, side)
    with torch.no_grad(), pruner(model) as trace:
        tokens = new_tokens(model, together, 4).tolist() if side == "left" else None
        logits = model(**together).logits
        survivors = [kept(trace, row) for row in range(len(samples))]
        entered = [[int(layer[row]) for layer in trace.visual_in] for row in range(len(samples))]
    for row, sample in enumerate(samples):
        with torch.no_grad(), pruner(model) as trace:
            assert tokens is None or new_tokens(model, sample, 4)[0].tolist() == tokens[row]
            alone = model(**sample).logits[0, -1]
        assert survivors[row] == kept(trace)
        assert entered[row] == [int(layer[0]) for layer in trace.visual_in]
        last = -1 - int(together["attention_mask"][row].flip(0).argmax())
        torch.testing.assert_close(logits[row, last], alone, rtol=1e-4, atol=2e-4)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("around", ["alone", "before dense", "after dense", "in another"])
@pytest.mark.parametrize("method", one_a_kind(name for name in ON_IMAGES if not PRUNERS[name].biases_attention))
@torch.no_grad()
def test_one_pruner_composed_is_that_pruner_to_the_bit(method, around):
    model = build("llama-gqa", 4, patch=3, seed=2)
    if method == "fitprune":
        pruner = FitPrune(Recipe([9, 12, 0, 20], 64))
    elif method == "dense" or method in IN_CLIP:
        pruner = PRUNERS[method](*IN_CLIP.get(method, ()))
    else:
        pruner = PRUNERS[method].for_reduction(model.config, 0.5 if method == "vtw" else 0.4)
    inputs = batch([prompt(model, parts, seed) for seed, parts in enumerate(PARTS)])
    wrapped = {
        "alone": Composed([pruner]),
        "before dense": Composed([pruner, Dense()]),
        "after dense": Composed([Dense(), pruner]),
        "in another": Composed([Composed([pruner])]),
    }[around]
    runs = []
    for each in (pruner, wrapped):
        with each(model) as trace:
            tokens = new_tokens(model, inputs, 3)
            logits = model(**inputs).logits
        runs.append((logits, trace, tokens))
    (logits, trace, tokens), (other, own, again) = runs
    assert torch.equal(logits, other)
    assert torch.equal(tokens, again)
    assert [kept(trace, row) for row in range(4)] == [kept(own, row) for row in range(4)]
    assert trace.scoring_macs == own.scoring_macs
    for name in ("visual_in", "visual_out"):
        assert torch.equal(torch.stack(getattr(trace, name)), torch.stack(getattr(own, name)))
