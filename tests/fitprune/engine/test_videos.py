"""Prompts with videos: the frames are one pool of visual tokens, pruned as by the literal reference; what is refused."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from baselines.before_decoder.divprune import DivPrune
from baselines.before_decoder.vispruner import VisPruner
from baselines.between_layers.fastv import FastV
from baselines.controls.random_pruning import Random
from baselines.controls.uniform import Uniform
from fitprune import FitPrune, Reader, Recipe, UnsupportedModel
from fitprune.engine.image_cache import remembering_images
from fitprune.search import drop_counts
from tests.reference.decoder import fitprune, reference_of
from tests.reference.divprune import divprune
from tests.reference.fastv import fastv
from tests.reference.fitting import drops
from tests.support.before_decoder import embedded
from tests.support.families import FAMILIES, build
from tests.support.families import inputs as inputs_of_images
from tests.support.families import processor as processor_of_images
from tests.support.literal import compare, tokens_of
from tests.support.models import kept, new_tokens
from tests.support.releases import cache_of, with_cache
from tests.support.videos import SEE_VIDEOS, Clip, inputs, processor

pytestmark = pytest.mark.releases
RECIPE = Recipe([9, 7, 12], 36)
PROMPTS = {
    "one": ["w1 w2", Clip(4), "w3 w4 w5 w6"],
    "two": ["w1", Clip(3, seed=1), "w2", Clip(3, seed=7), "w3 w4"],
    "image first": [(30, 20), "w1", Clip(2), "w2 w3"],
    "image last": ["w1", Clip(5), "w2", (20, 44), "w3"],
}


@pytest.fixture(scope="module", params=SEE_VIDEOS)
def family(request):
    return request.param


@pytest.mark.parametrize(("family", "parts"), [*itertools.product(SEE_VIDEOS, PROMPTS), ("internvl", "two")])
def test_fitprune(family, parts):
    """InternVL's processor makes images of frames."""
    model, parts = build(family), PROMPTS[parts]
    sample = inputs(processor(family), [parts])
    total = tokens_of(model, sample)
    trace = compare(model, sample, FitPrune(RECIPE), fitprune(model, sample, RECIPE.schedule(total), 6))
    assert trace.visual_tokens.tolist() == [total]
    assert trace.text_tokens.tolist() == [sample["input_ids"].shape[1] - total]


@pytest.mark.parametrize("parts", [PROMPTS["one"], PROMPTS["image last"]], ids=["one", "image last"])
def test_fastv(family, parts):
    model = build(family, seed=1)
    sample = inputs(processor(family), [parts])
    compare(model, sample, FastV(k=1, r=0.5), fastv(model, sample, layer=1, ratio=0.5, new_tokens=6))


def chosen_by(name, model, sample):
    """The indices that a rule keeps before the decoder of one prompt."""
    total = tokens_of(model, sample)
    if name == "divprune":
        chosen, gap = divprune(embedded(model, sample).features.double(), 0.5)
        assert gap > 1e-6
        return chosen
    if name == "uniform":
        count = total - round(total * 0.5)
        return sorted({index * total // count for index in range(count)})
    with torch.no_grad(), Random(0.5)(model) as trace:
        model(**sample)
    assert len(kept(trace)[0]) == total - round(total * 0.5)
    return kept(trace)[0]


BEFORE = {"divprune": DivPrune(0.5, positions="kept"), "uniform": Uniform(0.5), "random": Random(0.5)}


@pytest.mark.parametrize("parts", [PROMPTS["one"], PROMPTS["image last"]], ids=["one", "image last"])
@pytest.mark.parametrize("name", BEFORE)
def test_before_the_decoder(family, name, parts):
    model = build(family)
    sample = inputs(processor(family), [parts])
    reference = reference_of(model)
    run, caches, following = reference.prefill(sample, only=chosen_by(name, model, sample))
    compare(model, sample, BEFORE[name], reference.decode(run, caches, following, 6))


SAMPLES = [
    ["w1 w2", Clip(3, seed=1), "w3 w4 w5 w6"],
    ["w5 w6 w7"],
    ["w1", (20, 44), "w2", Clip(3, seed=2), "w3 w4 w5"],
    [(30, 20), "w8 w9"],
    ["w1", Clip(3, seed=3), "w2", Clip(3, seed=4), "w3"],
]
PRUNERS = {"fitprune": FitPrune(RECIPE), "fastv": FastV(k=1, r=0.4), **BEFORE}


@pytest.mark.parametrize("name", PRUNERS)
def test_a_left_padded_batch_is_one_by_one(family, name):
    """Videos, images, both and none, side by side; by the model itself, by `generate`, and with beams."""
    model, encode, pruner = build(family, seed=3), processor(family), PRUNERS[name]
    together = inputs(encode, SAMPLES)
    with torch.no_grad(), pruner(model) as trace:
        logits = model(**together).logits
        all_kept, totals = [kept(trace, row) for row in range(len(SAMPLES))], trace.visual_tokens.tolist()
        tokens = new_tokens(model, together).tolist()
        assert [kept(trace, row) for row in range(len(SAMPLES))] == all_kept
        beams = new_tokens(model, together, 3, num_beams=2).tolist()
        assert [kept(trace, 2 * row + 1) for row in range(len(SAMPLES))] == all_kept
    for row, parts in enumerate(SAMPLES):
        alone = inputs(encode, [parts])
        with torch.no_grad(), pruner(model) as trace:
            one = model(**alone).logits
            assert (kept(trace), trace.visual_tokens.tolist()) == (all_kept[row], [totals[row]])
            assert float((logits[row, -1] - one[0, -1]).abs().max()) < 1e-4
            assert new_tokens(model, alone)[0].tolist() == tokens[row]
            assert new_tokens(model, alone, 3, num_beams=2)[0].tolist() == beams[row]
    assert totals[1] == 0
    assert len(set(totals)) >= 4


def draw(model, sample, pruner, generate=False):
    with torch.no_grad(), pruner(model) as trace:
        new_tokens(model, sample, 1) if generate else model(**sample)
    return kept(trace)[0]


@pytest.mark.parametrize("parts", [PROMPTS["one"], PROMPTS["image first"]], ids=["one", "image first"])
def test_a_draw_is_of_the_video_too(family, parts):
    """And of the image beside it; the same where images and videos were encoded before, by `generate` or by a cache of them."""
    model = build(family)
    sample = inputs(processor(family), [parts])
    drawn = draw(model, sample, Random(0.5))
    others = [{name: sample[name].flip(0 if sample[name].ndim == 2 else -1)} for name in sample if "pixel" in name]
    for generate in (False, True):
        assert draw(model, sample, Random(0.5), generate) == drawn
        assert all(draw(model, sample | other, Random(0.5), generate) != drawn for other in others)
    with remembering_images(model):
        assert [draw(model, sample, Random(0.5)) for _ in range(2)] == [drawn] * 2


def test_a_video_s_draw_forgets_what_was_encoded_for_another_prompt(family):
    model, encode = build(family), processor(family)
    image, video = inputs(encode, [[(30, 20), "w1"]]), inputs(encode, [["w1", Clip(4), "w2"]])
    drawn = draw(model, video, Random(0.5)), draw(model, image, Random(0.5))
    names = {"pixel_values", "image_sizes", "image_grid_thw"} & image.keys()
    with torch.no_grad(), Random(0.5)(model) as trace:
        model.model.get_image_features(**{name: image[name] for name in names})
        model(**video)
        assert kept(trace)[0] == drawn[0]
        model.model.get_video_features(
            **{name: video[name] for name in ("pixel_values_videos", "video_grid_thw") if name in video}
        )
        model(**image)
        assert kept(trace)[0] == drawn[1]


def test_the_newline_behind_a_video_stays_unless_the_pruner_says_otherwise():
    model = build("llava_onevision")
    sample = inputs(processor("llava_onevision"), [["w1", Clip(2), "w2 w3"]])
    places = (sample["input_ids"][0] == model.config.video_token_id).nonzero().flatten().tolist()
    for newlines, prunable in (("kept", places[:-1]), ("pruned", places)):
        with torch.no_grad(), Uniform(0.5, newlines=newlines)(model) as trace:
            model(**sample)
        assert trace.place[0].tolist() == prunable


def test_alpha_finds_on_videos_what_the_literal_rule_drops(family):
    model, encode = build(family, 2), processor(family)
    samples = [["w1 w2", Clip(2, seed=1), "w3 w4"], [(30, 20), "w1", Clip(2), "w2"]]
    found = drop_counts(model, [inputs(encode, samples)], 0.3)
    assert found.tolist() == [drops(model, inputs(encode, [parts]), 0.3) for parts in samples]


def test_a_conversation_goes_on_and_a_second_video_is_refused(family):
    model, encode = build(family), processor(family)
    first = inputs(encode, [["w1", Clip(2), "w2 w3"]])
    with torch.no_grad(), FitPrune(RECIPE)(model):
        cache = cache_of(model(**first))
        following = torch.tensor([[20, 21]])
        step = model(input_ids=following, **with_cache(model, cache)).logits
        with pytest.raises(UnsupportedModel, match=r"^an image or video comes in after \d+ tokens[^\n]*$"):
            model(**first, **with_cache(model, cache))
    assert step.shape[1] == 2


def test_frames_that_a_method_of_the_tower_would_not_know_again_are_refused():
    model, encode = build("llava_onevision"), processor("llava_onevision")
    for parts in (["w1", Clip(2), "w2"], [(30, 20), "w1", Clip(2), "w2"]):
        for call in (model, lambda **given: new_tokens(model, given, 1)):
            with (
                torch.no_grad(),
                VisPruner()(model),
                pytest.raises(UnsupportedModel, match=r"^vispruner works .* pooled behind[^\n]*$"),
            ):
                call(**inputs(encode, [parts]))


@pytest.mark.parametrize("way", ["forward", "generate", "beams"])
def test_a_prompt_whose_video_is_cut_off_is_named_with_its_numbers(family, way):
    model = build(family)
    whole = inputs(processor(family), [[(30, 20), "w1", Clip(2), "w2"]])
    shape, visual = whole["input_ids"].shape, whole["input_ids"][0] == model.config.video_token_id
    end = int(visual.nonzero().max()) - 3
    cut = {name: value[:, :end] if getattr(value, "shape", None) == shape else value for name, value in whole.items()}
    tokens = int(visual.sum())
    said = rf"^the prompt has {tokens - 4} video tokens, its 1 videos have {tokens} features; prepare[^\n]*$"
    if way != "forward" and family != "llava_onevision":
        said = r"^the visual tokens of this prompt are not as many as its images and videos need; prepare[^\n]*$"
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(UnsupportedModel, match=said):
        model(**cut) if way == "forward" else new_tokens(model, cut, 2, num_beams=1 + (way == "beams"))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in SEE_VIDEOS])
def test_a_video_is_refused_where_a_model_sees_images_alone(family):
    model = build(family)
    sample = inputs_of_images(processor_of_images(family), [["w1", (30, 20), "w2"]])
    said = r"^this prompt holds a video, and those of \w+ are not pruned: [^\n]*$"
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(UnsupportedModel, match=said):
        model(**sample, pixel_values_videos=torch.zeros(1, 2, 3, 24, 24))


def test_the_times_that_qwen3_vl_s_processor_writes_before_frames_are_no_words_of_the_question():
    written = "user\n<0.2 seconds><12.5 seconds>What runs <fast> in 3.5 seconds?\nassistant"
    reader = Reader(SimpleNamespace(decode=lambda ids, skip_special_tokens: written), "user\n", "\nassistant")
    assert reader.questions(torch.ones(1, 2), torch.ones(1, 2)) == ["What runs <fast> in 3.5 seconds?"]
