"""EVS and VidCom² on videos, against their literal rules; what they cost, and what they refuse."""

import dataclasses

import pytest
import torch

from baselines.controls.random_pruning import Random
from baselines.on_videos.evs import EVS
from baselines.on_videos.vidcom2 import VidCom2
from baselines.registry import get_pruner_class
from fitprune import Composed, FitPrune, FitPruneError, Recipe, UnsupportedModel
from fitprune.interface.layout import prompt_layout
from fitprune.interface.tokens import LayerContext, VisualTokens
from fitprune.models.images import Images
from tests.reference.decoder import reference_of
from tests.reference.evs import evs
from tests.reference.vidcom2 import vidcom2
from tests.support.before_decoder import compare as compare_batch
from tests.support.before_decoder import embedded, saved
from tests.support.families import build
from tests.support.literal import compare
from tests.support.models import kept, new_tokens
from tests.support.videos import SEE_VIDEOS, Clip, inputs, processor
from tests.support.waits import of_prefill

pytestmark = pytest.mark.releases
RULES = {
    "evs": (EVS(0.6), lambda features, frames: evs(features, frames, 0.6)),
    "evs at its floor": (EVS(0.9), lambda features, frames: evs(features, frames, 0.9)),
    "vidcom2": (VidCom2(0.4), lambda features, frames: vidcom2(features, frames, 0.4)),
    "vidcom2 above a half": (VidCom2(0.8), lambda features, frames: vidcom2(features, frames, 0.8)),
    "vidcom2 exact": (VidCom2(0.8, exact=True), lambda features, frames: vidcom2(features, frames, 0.8, exact=True)),
}
PROMPTS = {
    "one": ["w1 w2", Clip(4), "w3 w4 w5 w6"],
    "one frame": ["w1", Clip(1, seed=4), "w2"],
    "two": ["w1", Clip(4, seed=1), "w2", Clip(4, seed=9), "w3 w4"],
    "image first": [(30, 20), "w1", Clip(5, seed=2), "w2 w3"],
    "image last": ["w1", Clip(6, seed=3), "w2", (20, 44), "w3"],
}


@pytest.fixture(scope="module", params=SEE_VIDEOS)
def family(request):
    return request.param


def chosen(model, parts, rule):
    """The indices that a rule for one video keeps of a prompt: of each of its videos, and all of its images."""
    family, sample = model.config.model_type, inputs(processor(model.config.model_type), [parts])
    visual = zip(sample["input_ids"][0].tolist(), reference_of(model).pool(sample), strict=True)
    of_videos = [token == model.config.video_token_id for token, own in visual if own]
    pool = [index for index, of_video in enumerate(of_videos) if of_video]
    stays = [index for index, of_video in enumerate(of_videos) if not of_video]
    frames = [part.frames if family == "llava_onevision" else -(-part.frames // 2) for part in parts if isinstance(part, Clip)]
    each = len(pool) // sum(frames)
    for count in frames:
        own, pool = pool[: count * each], pool[count * each :]
        picked, gap = rule(embedded(model, sample).features[own], count)
        assert gap > 1e-6, "the random model has a near-tie: choose another seed"
        stays += [own[index] for index in picked]
    return sorted(stays)


@pytest.mark.product(strength=2)
@pytest.mark.parametrize("parts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", RULES)
def test_against_the_literal_rule(family, name, parts):
    """Kept tokens, cache, logits and greedy text; odd numbers of frames, of which Qwen's towers take two at a time."""
    model, (pruner, rule) = build(family, seed=1), RULES[name]
    pruner = dataclasses.replace(pruner, positions="kept")
    sample, reference = inputs(processor(family), [parts]), reference_of(model)
    run, caches, following = reference.prefill(sample, only=chosen(model, parts, rule))
    compare(model, sample, pruner, reference.decode(run, caches, following, 4))


SAMPLES = [PROMPTS["one"], ["w5 w6 w7"], ["w1", Clip(4, seed=5), "w2", (20, 44), "w3"], PROMPTS["two"]]


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_a_left_padded_batch_is_one_by_one(family, name):
    model, encode, pruner = build(family, seed=3), processor(family), RULES[name][0]
    pruner = dataclasses.replace(pruner, positions="kept")
    together = inputs(encode, SAMPLES)
    with torch.no_grad(), pruner(model) as trace:
        tokens = new_tokens(model, together, 3).tolist()
        all_kept = [kept(trace, row) for row in range(len(SAMPLES))]
        new_tokens(model, together, 2, num_beams=2)
        assert [kept(trace, 2 * row + 1) for row in range(len(SAMPLES))] == all_kept
    for row, parts in enumerate(SAMPLES):
        with torch.no_grad(), pruner(model) as trace:
            assert new_tokens(model, inputs(encode, [parts]), 3)[0].tolist() == tokens[row]
            assert kept(trace) == all_kept[row]


def test_positions_are_numbered_anew_where_the_authors_do():
    model = build("llava_onevision", seed=1)
    parts = [PROMPTS["one"], PROMPTS["two"]]
    encode, (pruner, rule) = processor("llava_onevision"), RULES["vidcom2"]
    going = [[(index, None) for index in chosen(model, own, rule)] for own in parts]
    samples = [inputs(encode, [own]) for own in parts]
    together = {"left": inputs(encode, parts)}
    compare_batch(model, pruner, samples, together.get, lambda prompt, number: going[number])


@pytest.mark.parametrize("newlines", ["kept", "pruned"])
def test_a_newline_behind_a_video_is_no_frame_s_and_stays(newlines):
    model = build("llava_onevision", seed=2)
    sample = inputs(processor("llava_onevision"), [PROMPTS["two"]])
    places = (sample["input_ids"][0] == model.config.video_token_id).nonzero().flatten()
    behind = [int(places[len(places) // 2 - 1]), int(places[-1])]
    left = []
    for made in (EVS(0.6, newlines=newlines), EVS(0.6)):
        with torch.no_grad(), made(model) as trace:
            model(**sample)
        left.append({int(trace.place[0, index]) for index in kept(trace)[0]})
    assert left[0] == left[1] | (set(behind) if newlines == "pruned" else set())


def tokens_of(features, frames):
    """What a pruner sees before the decoder of one video with these features (n, d)."""
    n = len(features)
    there = torch.ones(1, n, dtype=torch.bool)
    video = Images([torch.empty(0)], [n], [(frames, n // frames)])
    around = LayerContext(prompt={"seen": {"video": (video, there)}})
    return VisualTokens(features[None], prompt_layout(there, there, None), context=around)


def test_of_equal_changes_the_earlier_token_stays():
    """Where nothing moves all changes are equal."""
    frame = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0], [-1.0, 0.0]])
    tokens = tokens_of(frame.repeat(4, 1), 4)
    assert EVS(0.5).before_layer(0, tokens)[0].nonzero().flatten().tolist() == list(range(8))


def test_a_moving_patch_stays_and_a_still_one_goes():
    still, moving = torch.eye(4)[0].repeat(6, 4, 1), torch.eye(4)[:3].repeat(2, 1)
    still[:, 2] = moving
    stays = EVS(0.62).before_layer(0, tokens_of(still.flatten(0, 1), 6))[0].view(6, 4)
    assert stays.tolist() == [[True] * 4] + [[False, False, True, False]] * 5


def test_a_frame_unlike_the_others_keeps_more():
    torch.manual_seed(0)
    frames = (torch.rand(6) + torch.randn(10, 6) / 50).repeat(16, 1, 1)
    frames[7] *= -1
    stays = VidCom2(0.4).before_layer(0, tokens_of(frames.flatten(0, 1), 16))[0].view(16, 10).sum(1)
    assert stays.tolist() == [4] * 7 + [8] + [4] * 8


@pytest.mark.parametrize(("pruner", "products"), [(EVS(0.5), 3 / 4), (VidCom2(0.5), 1)])
def test_what_choosing_costs_and_that_a_cost_is_a_part_of_the_budget(pruner, products):
    model = build("llava_onevision")
    sample = inputs(processor("llava_onevision"), [PROMPTS["one"]])
    n = int((sample["input_ids"] == model.config.video_token_id).sum()) - 1
    with torch.no_grad(), pruner(model) as trace:
        model(**sample)
    assert trace.scoring_macs == [products * n * 32, 0, 0]
    for reduction in (0.3, 0.5, 0.7):
        solved = type(pruner).for_reduction(model.config, reduction, visual_tokens=n)
        with torch.no_grad(), solved(model) as trace:
            model(**sample)
        assert saved(model, trace) == pytest.approx(reduction, abs=0.02)  # a token is 1/36


@pytest.mark.parametrize("method", [EVS, VidCom2])
def test_a_budget_keeps_the_tokens_that_it_says(method):
    """Whatever rounding makes of a share, of any number of tokens."""
    config = build("qwen2_5_vl").config
    for n in (36, 196, 576, 1000):
        for points in range(10, 90, 7):
            solved = method.for_reduction(config, points / 100, visual_tokens=n)
            share = 1 - solved.video_pruning_rate if method is EVS else solved.base_scale
            assert n * share % 1 == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_more_videos_of_one_shape_take_no_more_operations(name):
    model, encode = build("llava_onevision", 5), processor("llava_onevision")
    launched = []
    for count in (2, 4):
        sample = inputs(encode, [["w1", Clip(4, seed=row), "w2"] for row in range(count)])
        dense, pruned = (of_prefill(model, sample, pruner) for pruner in (None, RULES[name][0]))
        launched.append(pruned[1] - dense[1])
    assert launched[0] == launched[1]


REFUSED = {
    "an image alone": ([["w1", (30, 20), "w2"]], "a prompt holds images alone|brings none that is known"),
    "beside a video": ([["w1", Clip(4), "w2"], ["w1", (30, 20), "w2"]], "a prompt holds images alone"),
}


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
@pytest.mark.parametrize("case", REFUSED)
def test_images_alone_are_refused(family, case, name):
    model, (samples, said) = build(family), REFUSED[case]
    with torch.no_grad(), dataclasses.replace(RULES[name][0], positions="kept")(model) as trace:
        with pytest.raises(UnsupportedModel, match=rf"^this method compares the frames of a video, [^\n]*({said})[^\n]*$"):
            model(**inputs(processor(family), samples))
        model(**inputs(processor(family), [["w1 w2 w3"]]))
        assert int(trace.visual_tokens) == 0


def test_a_model_that_sees_images_alone_is_refused_at_once():
    model = build("llava_next")
    said = r"^evs prunes videos, .*; LlavaNext\w+ is shown images alone\. Models with videos: llava[^\n]*$"
    with pytest.raises(UnsupportedModel, match=said), EVS()(model):
        pass


def test_frames_given_as_embeddings_are_not_known():
    model = build("qwen2_5_vl")
    sample = inputs(processor("qwen2_5_vl"), [PROMPTS["one"]])
    embeds = embedded(model, sample).embeds[None]
    mask = sample["input_ids"] == model.config.video_token_id
    with torch.no_grad(), EVS()(model, visual_mask=mask), pytest.raises(UnsupportedModel, match="brings none that is known"):
        model(inputs_embeds=embeds, attention_mask=sample["attention_mask"])


def test_evs_before_fitprune_and_not_behind_another():
    model = build("llava_onevision")
    sample = inputs(processor("llava_onevision"), [PROMPTS["one"]])
    with torch.no_grad(), Composed([EVS(0.5), FitPrune(Recipe([2, 3, 1], 18))])(model) as trace:
        model(**sample)
    assert int(trace.visual_in[0][0]) == 18
    assert [int(layer[0]) for layer in trace.visual_out] == [16, 13, 12]
    behind = Composed([Random(0.5), EVS()])
    said = r"^this method compares whole frames, and another pruner has dropped [^\n]*$"
    with torch.no_grad(), behind(model), pytest.raises(UnsupportedModel, match=said):
        model(**sample)
    with pytest.raises(FitPruneError, match=r"^evs compares whole frames, .* name it first\.$"):
        get_pruner_class("random+evs")
    saved_together = get_pruner_class("evs+fastv").for_reduction(model.config, 0.5, visual_tokens=36)
    with torch.no_grad(), saved_together(model) as trace:
        model(**sample)
    assert saved(model, trace) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: EVS(1.0), "video_pruning_rate is a share of a video's tokens, .*not 1.0"),
        (lambda: EVS(-0.1), "not -0.1"),
        (lambda: VidCom2(0.0), "base_scale is a share of a video's tokens, .*not 0.0"),
    ],
)
def test_what_cannot_be_is_refused(made, said):
    with pytest.raises(FitPruneError, match=said):
        made()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["evs", "vidcom2 exact"])
def test_half_precision(family, name, dtype):
    model = build(family, dtype=dtype)
    sample = inputs(processor(family), [PROMPTS["one"]])
    sample = {key: value.to(dtype) if value.is_floating_point() else value for key, value in sample.items()}
    with torch.no_grad(), dataclasses.replace(RULES[name][0], positions="kept")(model) as trace:
        assert bool(model(**sample).logits.isfinite().all())
    assert 0 < len(kept(trace)[0]) < int(trace.visual_tokens)
