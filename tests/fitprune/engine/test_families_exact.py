"""FitPrune and FastV on the families beside LLaVA-1.5, against the literal reference: newlines, tiles, three-axis positions."""

import pytest
import torch

from baselines.between_layers.fastv import FastV
from baselines.controls.dense import Dense
from baselines.controls.random_pruning import Random
from fitprune import FitPrune, FitPruneError, Recipe
from tests.reference.decoder import fitprune, reference_of
from tests.reference.families import ThreeAxes, Tiled
from tests.reference.fastv import fastv
from tests.support.families import FAMILIES, build, inputs, processor
from tests.support.literal import compare, tokens_of
from tests.support.models import kept, new_tokens

pytestmark = pytest.mark.releases
MODELS = [
    ("llava_next", "llama"),
    ("llava_next", "mistral"),
    ("llava_onevision", "qwen2"),
    ("qwen2_5_vl", None),
    ("qwen3_vl", None),
    ("internvl", "qwen2"),
    ("internvl", "llama"),
    ("internvl", "qwen3"),
    ("smolvlm", None),
    ("gemma3", None),
]
RECIPE = Recipe([9, 7, 12], 36)
# Wide and high images, one and several, one with tiles beyond what LLaVA-OneVision keeps, with and without text before.
PROMPTS = {
    "wide": ["w1 w2", (30, 20), "w3 w4 w5 w6"],
    "high": ["w1", (11, 40), "w3 w4"],
    "two": ["w1", (20, 44), "w2", (30, 20), "w3 w4 w5"],
    "large": [(96, 96), "w7 w8 w9"],
}


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("parts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize(("family", "decoder"), MODELS)
def test_fitprune(family, decoder, parts, attention):
    """One recipe for every size of image: each prompt is pruned by its own number of visual tokens."""
    model = build(family, decoder=decoder, attention=attention)
    sample = inputs(processor(family), [parts])
    total = tokens_of(model, sample)
    drop = RECIPE.schedule(total)
    trace = compare(model, sample, FitPrune(RECIPE), fitprune(model, sample, drop, 6))
    assert trace.visual_tokens.tolist() == [total]
    assert trace.text_tokens.tolist() == [sample["input_ids"].shape[1] - total]
    assert [total - len(layer) for layer in kept(trace)] == [sum(drop[: layer + 1]) for layer in range(3)]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("parts", [PROMPTS["wide"], PROMPTS["two"]], ids=["wide", "two"])
@pytest.mark.parametrize(("family", "decoder"), MODELS)
def test_fastv(family, decoder, parts):
    model = build(family, decoder=decoder, seed=1)
    sample = inputs(processor(family), [parts])
    compare(model, sample, FastV(k=1, r=0.5), fastv(model, sample, layer=1, ratio=0.5, new_tokens=6))


@pytest.mark.parametrize(("family", "decoder"), MODELS)
def test_random_keeps_the_positions_of_survivors(family, decoder):
    """The pruned model equals the dense one with the dropped tokens masked out of a sequence of the same positions."""
    model = build(family, decoder=decoder)
    sample = inputs(processor(family), [PROMPTS["two"]])
    length = sample["input_ids"].shape[1]
    with torch.no_grad(), Random(0.5)(model) as trace:
        pruned = model(**sample).logits[0, -1]
    total = int(trace.visual_tokens)
    assert len(kept(trace)[0]) == total - round(total * 0.5)
    gone = sorted(set(range(total)) - set(kept(trace)[0]))
    mask = torch.ones(1, length, dtype=torch.long)
    mask[0, trace.place[0, gone]] = 0
    positions, _ = reference_of(model).positions(sample, length)
    ids = torch.tensor(positions).T[:, None] if isinstance(reference_of(model), ThreeAxes) else torch.tensor([positions])
    with torch.no_grad():
        dense = model(**sample | {"attention_mask": mask}, position_ids=ids).logits[0, -1]
    assert float((pruned - dense).abs().max()) < 5e-5


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_newlines_are_not_dropped_unless_the_pruner_says_so(family):
    model = build(family)
    sample = inputs(processor(family), [PROMPTS["wide"]])
    image = (sample["input_ids"][0] == model.config.image_token_id).tolist()
    patches = reference_of(model).visual(sample, image)
    places = [place for place, is_image in enumerate(image) if is_image]
    newlines = {place for place in places if not patches[place]}
    assert newlines
    total = len(places) - len(newlines)
    with torch.no_grad(), FitPrune(Recipe([total, 0, 0], total))(model) as trace:
        output = model(**sample)
    assert trace.place[0].tolist() == [place for place in places if patches[place]]
    assert output.logits.shape[1] == len(image) - total
    with torch.no_grad(), FitPrune(Recipe([len(places), 0, 0], len(places)), newlines="pruned")(model) as trace:
        output = model(**sample)
    assert trace.place[0].tolist() == places
    assert trace.visual_tokens.tolist() == [len(places)]
    assert output.logits.shape[1] == len(image) - len(places)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_newlines_that_may_be_pruned_are_visual_tokens_like_all_others(family, monkeypatch):
    model = build(family, seed=2)
    sample = inputs(processor(family), [PROMPTS["wide"]])
    pruner = FitPrune(RECIPE, newlines="pruned")
    monkeypatch.setattr(Tiled, "visual", lambda self, inputs, image: image)
    drop = RECIPE.schedule(int((sample["input_ids"] == model.config.image_token_id).sum()))
    compare(model, sample, pruner, fitprune(model, sample, drop, 6))
    assert pruner.params()["newlines"] == "pruned"
    assert FitPrune(RECIPE).params()["newlines"] == "kept"


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_near_the_exact_answer(family):
    """Tokens near the border may change; counts may not, nor most tokens. Newlines are found in any precision."""
    model = build(family, dtype=torch.bfloat16)
    sample = inputs(processor(family), [PROMPTS["two"]])
    sample["pixel_values"] = sample["pixel_values"].bfloat16()
    drop = RECIPE.schedule(tokens_of(model, sample))
    expected = fitprune(model, sample, drop)
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace:
        output = model(**sample)
    assert output.logits.dtype == torch.bfloat16
    assert [len(layer) for layer in kept(trace)] == [len(layer) for layer in expected.kept]
    shared = [len(set(a) & set(b)) / len(b) for a, b in zip(kept(trace), expected.kept, strict=True)]
    assert min(shared) >= 0.75
    cosine = torch.nn.functional.cosine_similarity(output.logits[0, -1].double(), expected.logits[-1], dim=0)
    assert float(cosine) > 0.99


def test_what_may_happen_to_newlines_is_one_of_two():
    with pytest.raises(FitPruneError, match=r"kept, pruned.*'dropped'"), Dense(newlines="dropped")(build("llava_next")):
        pass


@pytest.mark.parametrize(("family", "decoder"), MODELS)
def test_a_recipe_that_drops_nothing_is_the_dense_model(family, decoder):
    model = build(family, decoder=decoder)
    sample = inputs(processor(family), [PROMPTS["two"]])
    with torch.no_grad():
        plain, tokens = model(**sample).logits, new_tokens(model, sample)
        for pruner in (FitPrune(Recipe([0, 0, 0], 36)), Dense()):
            with pruner(model) as trace:
                assert torch.equal(model(**sample).logits, plain)
                assert torch.equal(new_tokens(model, sample), tokens)
            assert len(kept(trace)[-1]) == tokens_of(model, sample)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_prompt_is_untouched(family):
    model = build(family)
    sample = inputs(processor(family), [["w1 w2 w3 w4"]])
    with torch.no_grad():
        plain, tokens = model(**sample).logits, new_tokens(model, sample)
        with FitPrune(RECIPE)(model) as trace:
            assert torch.equal(model(**sample).logits, plain)
            assert torch.equal(new_tokens(model, sample), tokens)
    assert trace.visual_tokens.tolist() == [0]
    assert trace.text_tokens.tolist() == [4]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pruner", [FitPrune(RECIPE), FastV(k=1), Random(0.5)], ids=["fitprune", "fastv", "random"])
def test_decoded_tokens_take_the_positions_of_the_unpruned_sequence(family, pruner):
    model = build(family)
    sample = inputs(processor(family), [PROMPTS["two"]])
    reference = reference_of(model)
    positions, following = reference.positions(sample, sample["input_ids"].shape[1])
    seen = []
    hook = model.get_decoder().rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((*args[1:], kwargs.get("position_ids"))[0]), with_kwargs=True
    )
    with hook, torch.no_grad(), pruner(model):
        new_tokens(model, sample, 4)
    if family == "gemma3":  # once for each type of layers, and by itself for the pruner's own
        seen = [seen[0], *seen[-6::2]]
    axes = 3 if isinstance(reference, ThreeAxes) else 1
    assert seen[0].reshape(axes, -1).tolist() == torch.tensor(positions).reshape(-1, axes).T.tolist()
    assert [ids.reshape(axes, -1).tolist() for ids in seen[1:]] == [[[following + step]] * axes for step in range(3)]
