"""Models whose layers lie on several devices, or are offloaded: every method gives what it gives on the whole model."""

import dataclasses
import functools

import pytest
import torch

from baselines.before_decoder.visionzip import VisionZip
from baselines.between_layers.fastv import FastV
from baselines.between_layers.vtw import VTW
from fitprune import FitPrune, UnsupportedModel, fit
from fitprune.search import drop_counts
from tests.support import families, llava_hr, videos
from tests.support.claimed_devices import ClaimedDevices, decoder_over, spread
from tests.support.methods import ON_IMAGES, ON_VIDEOS, RECIPE, method, one_a_kind, outcome, same
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.releases import cache_of, with_cache

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.releases

LAYERS = 5
PRUNED = [FitPrune(RECIPE), FastV(2), FastV(3), VisionZip(9, 3, visual_tokens=36)]
# What draws, plans or counts on the host. Anything else has made a tensor in the wrong place, and was saved by a later move.
UPLOADS = {"baselines.controls.random_pruning", "baselines.shared.choosing.rounds", "fitprune.interface.layout"}
UPLOADS |= {"fitprune.models.clip_text"}  # a CLIP model may lie elsewhere
UPLOADS |= {"fitprune.interface.videos"}  # whose tokens are which, as the host has worked out
FAMILIES = ("llava", "llava-hr", *families.FAMILIES)
FITTED = ("llava", "llava_onevision", "qwen3_vl")  # by default: one view, tiles, positions on axes


def model_of(family, **options):
    if family == "llava":
        return build("llama-gqa", LAYERS, seed=2, **options)
    if family == "llava-hr":
        return llava_hr.build(layers=LAYERS)
    return families.build(family, LAYERS, seed=1, **options)


def inputs_of(model, family, number=3):
    """The first of three prompts in a padded batch: one image, two, none."""
    if family.startswith("llava") and family not in families.FAMILIES:
        sample = llava_hr.prompt if family == "llava-hr" else functools.partial(prompt, model)
        samples = [sample(parts, seed) for seed, parts in enumerate([[3, "image", 5], ["image", 2, "image", 7], [9]])]
        return batch(samples[:number])
    texts = [["w1 w2", (40, 20), "w3 w4 w5"], ["w6", (44, 48), "w7", (20, 60), "w8 w9"], ["w1 w5 w6"]]
    return families.inputs(families.processor(family), texts[:number])


def tower_over(model, *devices):
    """The placement of the projector, and of a CLIP's or SigLIP's layers; LLaVA-HR's tower must lie on one device."""
    if model.config.model_type == "llava_hr":
        return {"model.vision_tower": devices[0], "model.multi_modal_projector": "cuda:4"}
    layers = [name for name, module in model.named_modules() if type(module).__name__.endswith("EncoderLayer")]
    if not layers:
        return {}
    split = {name: devices[number * len(devices) // len(layers)] for number, name in enumerate(layers)}
    return {**split, "model.connector" if model.config.model_type == "smolvlm" else "model.multi_modal_projector": "cuda:4"}


def possible(pruner, model):
    """Skip what is refused on one device, too: a tower of another form, repacked positions on three axes."""
    try:
        with pruner(model):
            pass
    except UnsupportedModel as error:
        pytest.skip(str(error))


def check(model, apart, inputs, pruner):
    """The method on the whole `model`, and on the same model spread over devices by `apart`."""
    expected = outcome(model, inputs, pruner)
    with ClaimedDevices() as devices:
        apart(devices)
        there = {name: value.to("cuda:0") for name, value in inputs.items()}
        devices.uploads.clear()
        assert same(outcome(model, there, pruner), expected)
        assert set(devices.uploads) <= UPLOADS


def everywhere(model):
    """Spreads a model so that nothing that meets lies together."""
    decoder = next(name for name, module in model.named_modules() if module is model.get_decoder())
    layers = decoder_over(LAYERS, "cuda:1", "cuda:2", "cuda:3", decoder=decoder)
    placement = {**layers, **tower_over(model, "cuda:2", "cuda:3")}
    return lambda devices: spread(model, devices, placement)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("positions", ["kept", "repacked"])
@pytest.mark.parametrize("name", ON_IMAGES)
def test_every_method(name, positions):
    model = model_of("llava")
    check(model, everywhere(model), inputs_of(model, "llava"), method(name, model, positions))


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("positions", ["kept", "repacked"])
@pytest.mark.parametrize("name", one_a_kind())
def test_a_prompt_without_a_mask_and_a_token_decoded_by_hand(name, positions):
    model = model_of("llava")
    pruner, ids = method(name, model, positions), torch.tensor([[7]])
    sample = {part: value for part, value in prompt(model, [3, "image", 5], 1).items() if part != "attention_mask"}

    def logits(sample, ids):
        with torch.no_grad(), pruner(model):
            first = model(**sample)
            return first.logits.cpu(), model(input_ids=ids, **with_cache(model, cache_of(first))).logits.cpu()

    expected = logits(sample, ids)
    with ClaimedDevices() as devices:
        everywhere(model)(devices)
        got = logits({part: value.to("cuda:0") for part, value in sample.items()}, ids.to("cuda:0"))
    assert all(map(torch.equal, got, expected))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ON_IMAGES)
def test_every_method_on_tiles(name):
    model = model_of("llava_next")
    check(model, everywhere(model), inputs_of(model, "llava_next"), method(name, model))


def impossible(family, pruner, positions):
    """Positions on three axes cannot be numbered anew, and VisionZip needs another tower."""
    on_axes = family in families.ON_AXES
    another_tower = on_axes or family in ("internvl", "smolvlm", "gemma3")
    return (on_axes and positions == "repacked") or (another_tower and isinstance(pruner, VisionZip))


@pytest.mark.product(strength=1, without=impossible)
@pytest.mark.parametrize("positions", ["kept", "repacked"])
@pytest.mark.parametrize("pruner", PRUNED, ids=repr)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, pruner, positions):
    model, pruner = model_of(family), dataclasses.replace(pruner, positions=positions)
    possible(pruner, model)
    check(model, everywhere(model), inputs_of(model, family), pruner)


def offloaded(model):
    """Keeps all weights of a model on the CPU; each module's come to the GPU while it runs, and are on "meta" else."""

    def apart(devices):
        accelerate.cpu_offload(model, execution_device=torch.device("cuda:0"))
        assert all(weight.is_meta for weight in model.parameters())

    return apart


@pytest.mark.parametrize("name", ["fitprune", "random", *ON_VIDEOS])
@pytest.mark.parametrize("family", videos.SEE_VIDEOS)
def test_prompts_with_videos(family, name):
    """Draws are from the pixels, which lie with the tower. Methods for videos take no prompt with images alone."""
    model = families.build(family, LAYERS, seed=1)
    beside = ["w3", videos.Clip(4, seed=5)] if name in ON_VIDEOS else []
    prompts = [["w1 w2", videos.Clip(4), "w3 w4"], ["w1", (30, 20), "w2", *beside]]
    check(model, everywhere(model), videos.inputs(videos.processor(family), prompts), method(name, model))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in ON_IMAGES if name != "downsample"])
def test_every_method_with_offloaded_weights(name):
    model = model_of("llava", tie_word_embeddings=True)
    check(model, offloaded(model), inputs_of(model, "llava"), method(name, model))


def test_what_transformers_itself_cannot_offload_is_refused():
    model, tiled = model_of("llava"), model_of("llava_next")
    inputs, pictures = inputs_of(model, "llava"), inputs_of(tiled, "llava_next")
    for each in (model, tiled):
        accelerate.cpu_offload(each, execution_device=torch.device("cpu"))
    with torch.no_grad(), method("downsample", model)(model), pytest.raises(UnsupportedModel, match="position embeddings"):
        model(**inputs)
    with pytest.raises(NotImplementedError, match="meta tensor"):
        new_tokens(tiled, pictures, 2)
    with FastV(2)(tiled), pytest.raises(UnsupportedModel, match="image_newline is offloaded") as refusal:
        new_tokens(tiled, pictures, 2)
    assert "\n" not in str(refusal.value)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("pruner", PRUNED, ids=repr)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_offloaded_weights(family, pruner):
    model = model_of(family)
    possible(pruner, model)
    inputs = inputs_of(model, family)
    with torch.no_grad(), pruner(model) as expected:
        logits = model(**inputs).logits
    with ClaimedDevices() as devices, torch.no_grad():
        offloaded(model)(devices)
        with pruner(model) as trace:
            if family == "qwen3_vl":  # whose tower computes on the device of its inputs, whatever is offloaded
                inputs = {name: value.to("cuda:0") for name, value in inputs.items()}
            assert torch.equal(model(**inputs).logits.cpu(), logits)
        assert [kept(trace, row) for row in range(3)] == [kept(expected, row) for row in range(3)]


@pytest.mark.parametrize(
    "family", [*FITTED, *(pytest.param(family, marks=pytest.mark.exhaustive) for family in FAMILIES if family not in FITTED)]
)
def test_fit(family):
    model = model_of(family)
    samples = [inputs_of(model, family, 2)]
    expected, counts = fit(model, samples, 0.5, progress=False), drop_counts(model, samples, 0.2)
    with ClaimedDevices() as devices:
        everywhere(model)(devices)
        assert fit(model, samples, 0.5, progress=False).drop == expected.drop
        assert torch.equal(drop_counts(model, samples, 0.2), counts)


def test_the_search_for_vtws_layer():
    model = model_of("llava")
    samples = [inputs_of(model, "llava", 2)]
    expected = VTW.calibrate(model, samples, eta=10.0)
    with ClaimedDevices() as devices:
        everywhere(model)(devices)
        assert VTW.calibrate(model, samples, eta=10.0) == expected
