"""Random pruning: uniform, seeded, fresh for each sample, and the same in every batch."""

import pytest
import torch

from baselines.controls.random_pruning import Random
from fitprune import BudgetError, FitPruneError
from fitprune.flops import visual_macs
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def model():
    return build("llama-gqa", 2, seed=1)


def draw(model, inputs, pruner, generate=False):
    with torch.no_grad(), pruner(model) as trace:
        if generate:
            new_tokens(model, inputs, 1)
        else:
            model(**inputs)
    return [kept(trace, row)[0] for row in range(len(inputs["input_ids"]))]


def test_the_count_and_the_layers(model):
    inputs = prompt(model, [3, "image", 4])
    with torch.no_grad(), Random(0.4)(model) as trace:
        cache = cache_of(model(**inputs))
    assert len(kept(trace)[0]) == 36 - round(36 * 0.4)
    assert kept(trace)[0] == kept(trace)[1]
    assert [count.tolist() for count in trace.visual_in] == [[22], [22]]
    assert [cache.get_seq_length(layer) for layer in range(2)] == [29, 29]
    assert sum(trace.scoring_macs) == 0


def test_all_may_go(model):
    inputs = prompt(model, [3, "image", 4])
    with torch.no_grad(), Random(1.0)(model) as trace:
        assert model(**inputs).logits.shape[1] == 7
    assert kept(trace) == [[], []]


def test_survivors_keep_their_positions(model):
    """The pruned model equals the dense one with the dropped tokens masked out of a sequence of the same positions."""
    inputs = prompt(model, [3, "image", 4])
    with torch.no_grad(), Random(0.5)(model) as trace:
        pruned = model(**inputs).logits[0, -1]
    rows = [0, 1, 2] + [3 + index for index in kept(trace)[0]] + [39, 40, 41, 42]
    mask = torch.zeros(1, 43, dtype=torch.long)
    mask[0, rows] = 1
    with torch.no_grad():
        dense = model(**{**inputs, "attention_mask": mask}, position_ids=torch.arange(43)[None]).logits[0, -1]
    assert float((pruned - dense).abs().max()) < 5e-5


@pytest.mark.parametrize("generate", [False, True], ids=["forward", "generate"])
def test_the_draw_does_not_depend_on_the_batch(model, generate):
    samples = [
        prompt(model, parts, seed) for seed, parts in enumerate([["image", 2], [3, "image", "image", 4], [5, "image", 9]])
    ]
    together = draw(model, batch(samples), Random(0.5), generate)
    assert together == [draw(model, sample, Random(0.5), generate)[0] for sample in samples]
    assert together[::-1] == draw(model, batch(samples[::-1]), Random(0.5), generate)


@pytest.mark.parametrize("generate", [False, True], ids=["forward", "generate"])
@pytest.mark.parametrize("counts", [(2, 0), (0, 2), (2, 1, 0), (1, 0, 3, 0)], ids=str)
def test_the_draw_does_not_depend_on_text_prompts_in_the_batch(model, counts, generate):
    samples = [prompt(model, [2] + ["image"] * count + [3], seed) for seed, count in enumerate(counts)]
    together = draw(model, batch(samples), Random(0.5), generate)
    for sample, drawn, count in zip(samples, together, counts, strict=True):
        if count:
            assert drawn == draw(model, sample, Random(0.5), generate)[0]
        else:
            assert drawn == []


def test_the_draw_is_the_same_in_generate_and_in_a_forward(model):
    inputs = prompt(model, [3, "image", 4])
    assert draw(model, inputs, Random(0.5)) == draw(model, inputs, Random(0.5), generate=True)


def test_the_draw_is_the_same_for_every_beam(model):
    samples = [prompt(model, [3, "image", 4], seed) for seed in range(2)]
    with torch.no_grad(), Random(0.5)(model) as trace:
        new_tokens(model, batch(samples), 2, num_beams=2)
    expected = [draw(model, sample, Random(0.5), generate=True)[0] for sample in samples for _ in range(2)]
    assert [kept(trace, row)[0] for row in range(4)] == expected


@pytest.mark.parametrize("generate", [False, True], ids=["forward", "generate"])
def test_the_draw_changes_with_the_image_the_question_and_the_seed(model, generate):
    one, other = prompt(model, [3, "image", 4], 0), prompt(model, [3, "image", 4], 1)
    variants = [
        draw(model, one, Random(0.5), generate)[0],
        draw(model, {**one, "pixel_values": other["pixel_values"]}, Random(0.5), generate)[0],
        draw(model, {**one, "input_ids": other["input_ids"]}, Random(0.5), generate)[0],
        draw(model, one, Random(0.5, seed=1), generate)[0],
    ]
    assert len({tuple(variant) for variant in variants}) == 4
    assert variants[0] == draw(model, one, Random(0.5), generate)[0]


def test_the_draw_is_uniform(model):
    """Chi-square over how often each of 36 places stays, in 640 draws of 18: 35 degrees of freedom, 99.9 % point 66.6.

    Drawing without replacement lowers the variance of a count from np to np(1-p), which the statistic allows for.
    """
    counts = torch.zeros(36)
    images = torch.randn(40, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    inputs = batch([{**prompt(model, ["image", 2]), "pixel_values": image[None]} for image in images])
    for seed in range(16):
        for row in draw(model, inputs, Random(0.5, seed=seed)):
            counts[row] += 1
    chi = float(((counts - 320) ** 2 / (640 * 0.25)).sum()) * 35 / 36
    assert counts.sum() == 640 * 18
    assert 14 < chi < 66.6


@pytest.mark.parametrize("ratio", [0, -0.1, 1.1])
def test_a_ratio_outside_its_range(ratio):
    with pytest.raises(FitPruneError, match="ratio"):
        Random(ratio)


@pytest.mark.parametrize("reduction", [0.05, 0.3, 0.5, 0.7, 0.95])
def test_for_reduction(reduction):
    model = build("llama-gqa", 4, patch=2)
    pruner = Random.for_reduction(model.config, reduction)
    inputs = prompt(model, [3, "image", 4])
    with torch.no_grad(), pruner(model) as trace:
        model(**inputs)
    sizes = {"hidden_size": 32, "intermediate_size": 72, "kv_size": 16}
    left = int(trace.visual_in[0])
    saved = 1 - visual_macs([0] * 4, left, **sizes) / visual_macs([0] * 4, 144, **sizes)
    assert saved == pytest.approx(reduction, abs=0.01)


def test_for_reduction_of_what_is_no_share(model):
    for reduction in (0, 1, -0.5, 1.5, "half", None, True):
        with pytest.raises(FitPruneError, match="between 0 and 1"):
            Random.for_reduction(model.config, reduction)


def test_params_are_a_record(model):
    import json

    pruner = Random(0.25, seed=3)
    assert json.loads(json.dumps(pruner.params())).items() >= {"ratio": 0.25, "seed": 3}.items()
    assert BudgetError.__mro__[1] is FitPruneError
