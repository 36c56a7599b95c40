"""The FLOP counter's arithmetic: published figures, additivity, independence of the batch, bad input."""

import json
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    MistralConfig,
    SiglipVisionConfig,
)

from fitprune import FitPrune, FitPruneError, Recipe, UnsupportedModel
from fitprune.flops import visual_macs
from harness.cost.decoder import decode_macs, prefill_macs
from harness.cost.flops import NOT_COUNTED, count, count_from_tokens, prompt_tokens
from tests.support.flop_checkers import visual_reduction
from tests.support.random_llava import build, prompts

pytestmark = pytest.mark.releases
PUBLISHED = json.loads(resources.files("fitprune.recipes").joinpath("published_recipes.json").read_text(encoding="utf-8"))
VICUNA_7B = LlamaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32064
)
CLIP_L_336 = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
)
LLAVA_7B = LlavaConfig(vision_config=CLIP_L_336, text_config=VICUNA_7B)


def decoder_flops(config, text_tokens, visual_in, visual_out):
    """FLOPs of the decoder alone, for one new token."""
    prefill = prefill_macs(config, text_tokens, visual_in, visual_out)
    return 2 * (sum(prefill.values()) + sum(decode_macs(config, text_tokens, visual_in, 1).values()))


def test_llava_7b_prefill_of_640_tokens() -> None:
    cost = count_from_tokens(LLAVA_7B, 64, [576] * 32, [576] * 32)
    assert f"{cost.prefill / 2e12:.2f}" == "4.25"
    assert f"{cost.prefill / 1e12:.2f}" == "8.50"
    assert decoder_flops(VICUNA_7B, 640, [0] * 32, [0] * 32) == cost.prefill


def test_llava_7b_agrees_with_flop_counter_mode_at_full_size() -> None:
    with torch.device("meta"):
        decoder = LlamaForCausalLM(VICUNA_7B)
        ids = torch.ones(1, 640, dtype=torch.long)
        # A finished mask: building one looks at values, which the meta device does not have.
        mask = torch.zeros(1, 1, 640, 640)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        decoder(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False)
    assert decoder_flops(VICUNA_7B, 64, [576] * 32, [576] * 32) == counter.get_total_flops()


def test_clip_l_336_and_projector_by_hand() -> None:
    cost = count_from_tokens(LLAVA_7B, 64, [576] * 32, [576] * 32)
    # 24 layers of 577 tokens: four 1024² projections, two 1024×4096 matrices, QKᵀ and PV; 14×14×3 patches.
    layers = 24 * (577 * (4 * 1024**2 + 2 * 1024 * 4096) + 2 * 577**2 * 1024)
    assert cost.vision == 2 * (layers + 576 * 14 * 14 * 3 * 1024)
    assert cost.projector == 2 * 576 * (1024 * 4096 + 4096 * 4096)


def test_parts_and_operators_add_up() -> None:
    drop_in, drop_out = [576] * 16 + [100] * 16, [576] * 15 + [100] * 17
    cost = count_from_tokens(LLAVA_7B, 64, drop_in, drop_out, new_tokens=5, scoring_macs=[7] * 32)
    assert cost.total == cost.vision + cost.projector + cost.prefill + cost.decode == sum(cost.by_operator.values())
    assert cost.scoring == cost.by_operator["prefill.scoring"] == 2 * 7 * 32
    for part in ("vision", "projector", "prefill", "decode"):
        values = [value for name, value in cost.by_operator.items() if name.startswith(f"{part}.")]
        assert sum(values) == getattr(cost, part) > 0
    assert "softmax" in cost.not_counted == NOT_COUNTED
    assert "2 FLOPs" in cost.convention
    with pytest.raises(AttributeError):
        cost.prefill = 0


def test_decode_step_by_step() -> None:
    # 32 layers; step t: q, k, v, o and FFN of one token, attention to the 64 + 576 cached and t new tokens; lm_head.
    matrices = 4 * 4096**2 + 3 * 4096 * 11008
    steps = [32 * (matrices + 2 * (640 + t) * 4096) + 4096 * 32064 for t in (1, 2, 3)]
    for new_tokens in (1, 2, 4):
        cost = count_from_tokens(LLAVA_7B, 64, [576] * 32, [576] * 32, new_tokens)
        assert cost.decode == 2 * sum(steps[: new_tokens - 1])


def test_many_samples_are_the_sum_of_single_ones() -> None:
    text, new = [64, 40, 81], [1, 9, 3]
    entering = [[576, 576, 576]] * 20 + [[300, 211, 0]] * 12
    leaving = [[576, 576, 576]] * 19 + [[300, 211, 0]] * 13
    together = count_from_tokens(LLAVA_7B, text, entering, leaving, new, scoring_macs=30)
    single = [
        count_from_tokens(LLAVA_7B, text[i], [v[i] for v in entering], [v[i] for v in leaving], new[i], scoring_macs=10)
        for i in range(3)
    ]
    assert together.samples == 3
    for part in ("vision", "projector", "prefill", "decode", "scoring", "total"):
        assert getattr(together, part) == sum(getattr(one, part) for one in single)
    for kind in (np.array, torch.tensor):
        same = count_from_tokens(
            LLAVA_7B, kind(text), [kind(v) for v in entering], [kind(v) for v in leaving], kind(new), scoring_macs=30
        )
        assert same == together


@pytest.mark.parametrize("pruned", [False, True])
def test_padding_does_not_change_the_cost(pruned: bool) -> None:
    model = build("clip-llama-gqa")
    pruner = FitPrune(Recipe(drop=[0, 9, 0, 13, 4], visual_tokens=36)) if pruned else None
    inputs = prompts(model, [4, 17, 9])
    together = count(model, inputs, pruner, new_tokens=3)
    total = scoring = 0
    for row in range(3):
        real = inputs["attention_mask"][row].bool()
        one = {
            "input_ids": inputs["input_ids"][row : row + 1, real],
            "attention_mask": inputs["attention_mask"][row : row + 1, real],
            "pixel_values": inputs["pixel_values"][row : row + 1],
        }
        cost = count(model, one, pruner, new_tokens=3)
        total, scoring = total + cost.total - cost.scoring, scoring + cost.scoring
    assert together.total - together.scoring == total
    # Scoring is what was computed, padding included.
    assert together.scoring >= scoring


def test_a_trace_spares_the_run_and_gives_the_same() -> None:
    model = build("clip-llama-mha")
    pruner = FitPrune(Recipe(drop=[0, 9, 0, 13, 4], visual_tokens=36))
    inputs = prompts(model, [9, 9])
    with pruner(model) as trace, torch.inference_mode():
        model(**inputs)
    cost = count(model, inputs, pruner)
    assert count(SimpleNamespace(config=model.config), inputs, trace=trace) == cost
    entering, leaving = [36, 36, 27, 27, 14], [36, 27, 27, 14, 10]
    by_hand = count_from_tokens(
        model.config, [12, 12], [[v, v] for v in entering], [[v, v] for v in leaving], scoring_macs=trace.scoring_macs
    )
    assert by_hand == cost
    with pytest.raises(FitPruneError, match="trace is of 2 samples, the inputs are of 1"):
        count(model, {"input_ids": inputs["input_ids"][:1]}, trace=trace)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = build("clip-llama-mha")
    inputs = prompts(model, [9])
    with torch.inference_mode():
        before = model(**inputs).logits
        count(model, inputs, FitPrune(Recipe(drop=[0, 9, 0, 13, 4], visual_tokens=36)))
        assert torch.equal(model(**inputs).logits, before)


def test_prompt_without_an_image() -> None:
    model = build("clip-llama-mha")
    inputs = {"input_ids": torch.tensor([[1, 2, 3, 4]])}
    cost = count(model, inputs)
    assert (cost.vision, cost.projector) == (0, 0)
    assert cost.prefill == decoder_flops(model.config.text_config, 4, [0] * 5, [0] * 5)


def test_two_images_in_one_prompt() -> None:
    model = build("clip-llama-mha")
    one = prompts(model, [9])
    two = {key: torch.cat([value, value], 0 if key == "pixel_values" else 1) for key, value in one.items()}
    assert count(model, two).vision == 2 * count(model, one).vision
    assert count(model, two).projector == 2 * count(model, one).projector
    text, visual = prompt_tokens(model.config, two)
    assert (text.tolist(), visual.tolist()) == ([24], [72])


def test_reduction_end_to_end() -> None:
    dense = count_from_tokens(LLAVA_7B, 64, [576] * 32, [576] * 32)
    pruned = count_from_tokens(LLAVA_7B, 64, [0] * 32, [0] * 32)
    assert dense.reduction(dense) == 0.0
    assert pruned.reduction(dense) == 1 - pruned.total / dense.total


@pytest.mark.parametrize("nominal", ["10", "60", "90"])
def test_visual_reduction_of_the_published_tables(nominal: str) -> None:
    table = PUBLISHED["llava-1.5-7b"]["drop"][nominal]
    left = 576 - np.cumsum(table["per_layer"])
    entering, leaving = [576, *left[:-1].tolist()], left.tolist()
    assert round(visual_reduction(VICUNA_7B, 576, entering, leaving), 5) == table["reduction_visual_macs"]
    # Two samples with the same tokens save the same; scoring takes its share.
    both = visual_reduction(VICUNA_7B, [576, 576], [[v, v] for v in entering], [[v, v] for v in leaving])
    assert round(both, 5) == table["reduction_visual_macs"]
    dense = visual_macs([0] * 32, 576, 4096, 11008)
    scored = visual_reduction(VICUNA_7B, 576, entering, leaving, scoring_macs=[dense // 100])
    assert round(scored, 4) == round(table["reduction_visual_macs"] - 0.01, 4)


def test_visual_reduction_of_nothing() -> None:
    assert visual_reduction(VICUNA_7B, 0, [0] * 32, [0] * 32) == 0.0
    assert visual_reduction(VICUNA_7B, 576, [576] * 32, [576] * 32) == 0.0
    assert visual_reduction(VICUNA_7B, 576, [576] * 32, [576] * 32, scoring_macs=[1]) < 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, [576] * 31, [576] * 32), "visual_in has 31 layers, the decoder has 32"),
        ((64, [576] * 32, [576] * 33), "visual_out has 33 layers, the decoder has 32"),
        ((64, [[576, 576]] * 32, [576] * 32), r"visual_in\[0\] has 2 samples, text_tokens has 1"),
        ((-1, [576] * 32, [576] * 32), "text_tokens must be one non-negative count per sample"),
        (([], [[]] * 32, [[]] * 32), "text_tokens must be one non-negative count per sample"),
        ((64, [576] * 32, [576] * 32, 0), "new_tokens must be at least 1"),
        ((64, [576] * 32, [576] * 32, [1, 2]), "new_tokens must be at least 1 for each of 1 samples"),
    ],
)
def test_counts_that_do_not_fit_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(FitPruneError, match=message):
        count_from_tokens(LLAVA_7B, *arguments)


def test_unknown_architectures_are_refused() -> None:
    decoder = LlavaConfig(vision_config=CLIP_L_336, text_config=GPT2Config(num_hidden_layers=2))
    with pytest.raises(UnsupportedModel, match="decoder 'gpt2'; known: gemma3_text, llama, mistral"):
        count_from_tokens(decoder, 64, [576] * 2, [576] * 2)
    sliding = MistralConfig(num_hidden_layers=2, sliding_window=512)
    with pytest.raises(UnsupportedModel, match="640 tokens exceed the decoder's sliding window of 512"):
        decoder_flops(sliding, 64, [576] * 2, [576] * 2)
    tower = LlavaConfig(vision_config=SiglipVisionConfig(), text_config=VICUNA_7B)
    tower.vision_config.model_type = "other_tower"
    with pytest.raises(UnsupportedModel, match="vision tower 'other_tower'; known: clip"):
        count_from_tokens(tower, 64, [576] * 32, [576] * 32)


def test_tiled_pixel_values_are_refused() -> None:
    model = SimpleNamespace(config=LLAVA_7B)
    inputs = {"input_ids": torch.ones(1, 4, dtype=torch.long), "pixel_values": torch.zeros(1, 5, 3, 336, 336)}
    with pytest.raises(UnsupportedModel, match=r"\(1, 5, 3, 336, 336\)"):
        count(model, inputs)
