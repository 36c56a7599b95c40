"""The analytic FLOPs of the families beside LLaVA-1.5 against FlopCounterMode and fvcore on the same forward."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, DynamicCache, SiglipVisionConfig
from transformers.models.llava_next import modeling_llava_next
from transformers.models.llava_onevision import modeling_llava_onevision

from baselines.between_layers.fastv import FastV
from baselines.controls.dense import Dense
from baselines.controls.random_pruning import Random
from fitprune import FitPrune, Recipe, UnsupportedModel
from harness.cost.flops import count, count_from_tokens
from harness.cost.tally import Tally, batch_cost
from harness.cost.vision import vision_cost
from tests.support.families import FAMILIES, build, inputs, processor
from tests.support.flop_checkers import TOLERANCE, fvcore_flops, torch_flops, visual_reduction
from tests.support.models import kept
from tests.support.releases import with_cache

pytestmark = pytest.mark.releases

# Of one length each, since counters of kernels count padding: two images of one size, one of a size that fits no tile or
# window, and several images in one prompt.
BATCHES = {
    "one": [["w1", (30, 20), "w2 w3 w4"], ["w5", (30, 20), "w6 w7 w8"]],
    "odd": [["w1", (50, 27), "w2 w3 w4"]],
    "several": [["w1", (44, 20), "w2", (30, 90), "w3"]],
    "large": [[(90, 96), "w2 w3"]],
}
TOWERS = {"qwen2_5_vl": "visual", "qwen3_vl": "visual", "smolvlm": "vision_model"}
DECODERS = {"smolvlm": "text_model"}
MERGERS = {
    "smolvlm": ("connector",),
    "qwen2_5_vl": ("visual.merger",),
    "qwen3_vl": ("visual.merger", "visual.deepstack_merger_list.0", "visual.deepstack_merger_list.1"),
}
PRUNERS = {"fitprune": FitPrune(Recipe([9, 7, 12], 36)), "fastv": FastV(k=1), "random": Random(0.5), "dense": Dense()}


def by_module(model, counter):
    root = f"{type(model).__name__}."
    counts = {name.removeprefix(root): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    family = model.config.model_type
    projector = sum(counts["model." + part] for part in MERGERS.get(family, ("multi_modal_projector",)))
    inside = any(part.startswith("visual.") for part in MERGERS.get(family, ()))
    vision = counts["model." + TOWERS.get(family, "vision_tower")] - (projector if inside else 0)
    return vision, projector, counts["model." + DECODERS.get(family, "language_model")], counts


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("samples", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_dense_prefill_agrees_with_flop_counter_mode_in_every_part(family, samples):
    model = build(family)
    batch = inputs(processor(family), samples)
    cost = count(model, batch)
    counter = torch_flops(model, **batch)
    vision, projector, decoder, modules = by_module(model, counter)
    assert cost.total == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)
    assert (cost.vision, cost.projector) == (vision, projector)
    assert cost.prefill == decoder + modules["lm_head"]
    assert cost.by_operator["prefill.lm_head"] == modules["lm_head"]


@pytest.fixture
def traceable(monkeypatch):
    """Where an image's padding is cut off, sizes are rounded; in a trace they are tensors, which cannot be."""
    for module in (modeling_llava_next, modeling_llava_onevision):
        monkeypatch.setattr(module, "round", lambda value, digits: round(float(value), digits), raising=False)


@pytest.mark.usefixtures("traceable")
@pytest.mark.product(strength=1)
@pytest.mark.parametrize("samples", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_dense_prefill_agrees_with_fvcore(family, samples):
    # fvcore works on a traced graph, from which layers that nothing reads are gone: so the tower's last layer is read.
    model = build(family, attention="eager")
    model.config.vision_feature_layer = -1
    batch = inputs(processor(family), samples)
    batch.pop("token_type_ids", None)  # the masks that Gemma 3 makes of them cannot be traced, and change no size
    assert count(model, batch).total == pytest.approx(fvcore_flops(model, batch), rel=TOLERANCE)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("method", PRUNERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_prefill_and_decode_agree_with_flop_counter_mode_scoring_included(family, method):
    model, pruner = build(family, seed=1), PRUNERS[method]
    batch = inputs(processor(family), BATCHES["one"])
    steps, cache, decoded = 3, DynamicCache(config=model.config.text_config), 0
    with pruner(model), torch.no_grad():
        seen = torch_flops(model, **batch).get_total_flops()
        model(**batch, **with_cache(model, cache))
        for _ in range(steps):
            token = torch.full((2, 1), 20)
            decoded += torch_flops(model, input_ids=token, **with_cache(model, cache)).get_total_flops()
    cost, dense = count(model, batch, pruner, new_tokens=1 + steps), count(model, batch, new_tokens=1 + steps)
    assert cost.total - cost.decode == pytest.approx(seen, rel=TOLERANCE)
    assert cost.decode == decoded
    assert (cost.vision, cost.projector) == (dense.vision, dense.projector)
    assert (cost.total < dense.total) == (method != "dense")
    assert (cost.scoring > 0) == (method in ("fitprune", "fastv"))
    # The scoring is the pruner's, not some other cost of its size.
    assert seen - (cost.total - cost.decode - cost.scoring) == pytest.approx(cost.scoring, rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_cost_what_their_samples_cost_and_padding_costs_nothing(family):
    model, encode = build(family), processor(family)
    samples = [sample for batch in BATCHES.values() for sample in batch] + [["w1 w2"]]
    together = vision_cost(model.config, inputs(encode, samples))
    alone = [vision_cost(model.config, inputs(encode, [sample])) for sample in samples]
    total = sum(alone[1:], alone[0])
    assert (total.vision, total.projector) == (together.vision, together.projector)
    whole = count(model, inputs(encode, samples), new_tokens=3)
    assert whole.total == sum(count(model, inputs(encode, [sample]), new_tokens=3).total for sample in samples)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tally_of_a_suite_s_batches(family):
    """What a cell reports: dense and pruned, in batches of any size."""
    model, encode, pruner = build(family), processor(family), Random(0.5)
    batches = [BATCHES["one"] + BATCHES["odd"], BATCHES["several"]]
    dense, pruned = Tally(model.config), Tally(model.config)
    expected = []
    for samples in batches:
        batch = inputs(encode, samples)
        dense.add(batch_cost(model.config, batch, None, [2] * len(samples)))
        with torch.no_grad(), pruner(model) as trace:
            model(**batch)
        pruned.add(batch_cost(model.config, batch, trace, [2] * len(samples)))
        expected += [count(model, inputs(encode, [sample]), new_tokens=2).total for sample in samples]
    assert dense.flops() == sum(expected) / 4
    assert pruned.flops() < dense.flops()
    assert dense.reduction() == 0
    # Half the tokens go before the first layer: at least half of what is linear in them, up to three quarters of what is not.
    assert 0.45 < pruned.reduction() < 0.75


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_newlines_are_text_to_a_trace_and_the_cost_is_the_same(family):
    model = build(family)
    batch = inputs(processor(family), BATCHES["one"])
    with torch.no_grad(), Dense()(model) as trace:
        model(**batch)
    assert count(model, batch, trace=trace) == count(model, batch)
    assert trace.visual_tokens.tolist() == [len(kept(trace)[0])] * 2
    assert visual_reduction(model.config.text_config, trace.visual_tokens, trace.visual_in, trace.visual_out) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_counted_by_their_shape(family):
    model = build(family)
    batch = inputs(processor(family), BATCHES["several"])
    bare = SimpleNamespace(config=model.config)
    assert count(bare, batch | {"pixel_values": batch["pixel_values"].to("meta")}) == count(model, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_without_an_image_costs_no_vision(family):
    model = build(family)
    cost = count(model, inputs(processor(family), [["w1 w2"]]))
    assert (cost.vision, cost.projector) == (0, 0)
    assert cost.prefill > 0


def test_a_siglip_head_and_several_feature_layers_are_counted():
    model = build("llava_onevision", tower={"vision_use_head": True})
    assert isinstance(model.config.vision_config, SiglipVisionConfig)
    batch = inputs(processor("llava_onevision"), BATCHES["odd"])
    vision, projector, *_ = by_module(model, torch_flops(model, **batch))
    cost = count(model, batch)
    assert (cost.vision, cost.projector) == (vision, projector)
    assert cost.by_operator["vision.head"] > 0


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma3"])
def test_what_an_image_costs_is_not_the_configuration_s_to_say(family):
    config = build(family).config
    with pytest.raises(UnsupportedModel, match=rf"{family} model depends on its size; pass vision=") as error:
        count_from_tokens(config, 64, [100] * 3, [100] * 3)
    assert "\n" not in str(error.value)


def test_a_family_that_is_not_known_is_refused():
    config = AutoConfig.for_model("idefics3")
    with pytest.raises(UnsupportedModel, match=r"model 'idefics3'; known: gemma3, internvl, llava"):
        vision_cost(config, {"pixel_values": torch.zeros(1, 3, 8, 8)})


def test_llava_next_7b_at_2880_visual_tokens():
    """A 672x672 image: five tiles of CLIP-L/336, 2880 visual and 48 newline tokens; by hand."""
    config = AutoConfig.for_model(
        "llava_next", text_config={"model_type": "llama", "vocab_size": 32064, "intermediate_size": 11008}
    )
    ids = torch.ones(1, 2880 + 48 + 64, dtype=torch.long)
    ids[:, :2928] = config.image_token_id
    pixels = torch.empty(1, 5, 3, 336, 336, device="meta")
    cost = count(
        SimpleNamespace(config=config),
        {"input_ids": ids, "pixel_values": pixels, "image_sizes": torch.tensor([[672, 672]])},
    )
    layers = 24 * (577 * (4 * 1024**2 + 2 * 1024 * 4096) + 2 * 577**2 * 1024)
    assert cost.vision == 2 * 5 * (layers + 576 * 14 * 14 * 3 * 1024)
    assert cost.projector == 2 * 2880 * (1024 * 4096 + 4096 * 4096)
    tokens = 2880 + 48 + 64
    decoder = 32 * (tokens * (4 * 4096**2 + 3 * 4096 * 11008) + 2 * tokens**2 * 4096) + 4096 * 32064
    assert cost.prefill == 2 * decoder


def test_qwen2_5_vl_tower_at_full_size_by_hand():
    """A 28x42 grid of patches at the published sizes: windows of 8x8 patches, whole and cut; four layers attend everywhere."""
    config = AutoConfig.for_model(
        "qwen2_5_vl",
        vision_config={"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048},
        text_config={"num_hidden_layers": 2, "hidden_size": 2048},
    )
    patches = 28 * 42
    cost = vision_cost(config, {"pixel_values": torch.empty(patches, 1176), "image_grid_thw": torch.tensor([[1, 28, 42]])})
    heights, widths = [8, 8, 8, 4], [8, 8, 8, 8, 8, 2]
    windows = sum((height * width) ** 2 for height in heights for width in widths)
    assert cost.vision["attention"] == 2 * 1280 * (28 * windows + 4 * patches**2)
    assert cost.vision["ffn"] == 32 * patches * 3 * 1280 * 3420
    assert cost.vision["convolution"] == patches * 1176 * 1280
    assert cost.projector["linear"] == patches // 4 * (5120 * 5120 + 5120 * 2048)


def test_videos_are_not_counted_as_nothing():
    """Those that are pruned are held to torch's counter in `harness/models/test_video_files.py`."""
    model = build("internvl")
    sample = inputs(processor("internvl"), [["w1", (30, 20), "w2"]])
    with pytest.raises(UnsupportedModel, match=r"^internvl models are shown no videos: pass their frames as images\.$"):
        vision_cost(model.config, sample | {"pixel_values_videos": sample["pixel_values"]})
