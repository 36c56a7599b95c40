"""The multiply-accumulates of each part of a LLaVA, by arithmetic on its configuration and token counts.

Every function returns a dict from operator to MACs (multiply-accumulates, Python ints), and takes token counts per
sample, so that the cost of thousands of questions is one call. Attention is counted as the full rectangle of queries ×
keys, the causal half included: that is what the dense kernels behind eager attention and masked SDPA compute, and what
torch's FlopCounterMode and fvcore count.

Errors: UnsupportedModel for a part whose arithmetic is not known here, FitPruneError for token counts that do not fit
together.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fitprune.errors import FitPruneError, UnsupportedModel

Tokens = int | Sequence[int] | torch.Tensor
"""One count per sample; a bare int is one sample."""

DECODERS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Decoders with q, k, v, o projections and a gated FFN of three matrices."""

TOWERS = frozenset({"clip_vision_model", "siglip_vision_model"})
MODELS = frozenset({"llava"})


def vision_tokens(vision_config: Any) -> int:
    """Tokens in the tower per image: one per patch, and [CLS] in a CLIP tower."""
    _require(vision_config.model_type, TOWERS, "vision tower")
    patches = (vision_config.image_size // vision_config.patch_size) ** 2
    return patches + (vision_config.model_type == "clip_vision_model")


def vision_macs(vision_config: Any, images: int, tokens: int | None = None) -> dict[str, int]:
    """MACs of the vision tower for `images` images of `tokens` tokens each (by default `vision_tokens`).

    All layers are counted, also those above `vision_feature_layer`, whose output LLaVA does not read: transformers runs
    them. A SigLIP tower with a pooling head runs that too.
    """
    full = vision_tokens(vision_config)
    tokens = full if tokens is None else tokens
    patches = tokens - (vision_config.model_type == "clip_vision_model")
    width, inner = vision_config.hidden_size, vision_config.intermediate_size
    layers = vision_config.num_hidden_layers
    macs = {
        "convolution": images * patches * vision_config.num_channels * vision_config.patch_size**2 * width,
        "qkv": images * layers * tokens * 3 * width**2,
        "attention": images * layers * 2 * tokens**2 * width,
        "output": images * layers * tokens * width**2,
        "ffn": images * layers * tokens * 2 * width * inner,
    }
    if vision_config.model_type == "siglip_vision_model" and vision_config.vision_use_head:
        # One learnt query attends to all tokens, then an FFN of two matrices.
        attention = (2 * tokens + 2) * width**2 + 2 * tokens * width
        macs["head"] = images * (attention + 2 * width * inner)
    return macs


def projected_tokens(config: Any, tower_tokens: int) -> int:
    """Tokens per image that enter the projector: the strategy `default` leaves the first one ([CLS]) behind."""
    return tower_tokens - (config.vision_feature_select_strategy == "default")


def projector_macs(config: Any, tokens: int) -> dict[str, int]:
    """MACs of LLaVA's two-layer projector for `tokens` tokens in all."""
    _require(config.model_type, MODELS, "model")
    layers = config.vision_feature_layer
    features = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
    hidden = config.get_text_config().hidden_size
    return {"linear": tokens * (features * hidden + hidden**2)}


def prefill_macs(
    text_config: Any, text_tokens: Tokens, visual_in: Sequence[Tokens], visual_out: Sequence[Tokens]
) -> dict[str, int]:
    """MACs of the decoder over the prompts, and of `lm_head` on the last row of each (as in `generate`).

    `text_tokens`: per sample, prompt tokens that are neither visual nor padding. `visual_in[l]`: visual tokens that
    enter layer l (its q, k, v and attention). `visual_out[l]`: those that take part in its output projection and FFN.
    `text_tokens=0` gives the visual tokens' own cost, but for `lm_head`.
    """
    shape = _DecoderShape(text_config)
    text, entering, leaving = _samples(text_tokens, visual_in, visual_out, shape.layers)
    _within_window(text_config, text, entering, 0)
    tokens_in = sum(t + v for layer in entering for t, v in zip(text, layer, strict=True))
    tokens_out = sum(t + v for layer in leaving for t, v in zip(text, layer, strict=True))
    pairs = sum((t + v) ** 2 for layer in entering for t, v in zip(text, layer, strict=True))
    return {
        "qkv": tokens_in * shape.qkv,
        "attention": pairs * shape.attention,
        "output": tokens_out * shape.output,
        "ffn": tokens_out * shape.ffn,
        "lm_head": len(text) * shape.lm_head,
    }


def decode_macs(text_config: Any, text_tokens: Tokens, visual_in: Sequence[Tokens], new_tokens: Tokens) -> dict[str, int]:
    """MACs of the steps after the prefill, which gave the first new token: `new_tokens` - 1 steps per sample.

    In step t (from 1) one token runs through the decoder and attends, in layer l, to the cached text_tokens +
    visual_in[l] and to the t new ones, itself included. `new_tokens` is one number for all samples or one per sample.
    """
    shape = _DecoderShape(text_config)
    text, entering, _ = _samples(text_tokens, visual_in, visual_in, shape.layers)
    wanted = counts("new_tokens", new_tokens)
    wanted = wanted * len(text) if len(wanted) == 1 else wanted
    if len(wanted) != len(text) or min(wanted) < 1:
        raise FitPruneError(f"new_tokens must be at least 1 for each of {len(text)} samples, got {new_tokens}")
    steps = [new - 1 for new in wanted]
    _within_window(text_config, text, entering, max(steps))
    keys = sum(n * (t + v) for layer in entering for n, t, v in zip(steps, text, layer, strict=True))
    keys += shape.layers * sum(n * (n + 1) // 2 for n in steps)
    rows = sum(steps) * shape.layers
    return {
        "qkv": rows * shape.qkv,
        "attention": keys * shape.attention,
        "output": rows * shape.output,
        "ffn": rows * shape.ffn,
        "lm_head": sum(steps) * shape.lm_head,
    }


class _DecoderShape:
    """MACs per token (per query-key pair for `attention`) of one decoder layer, and of `lm_head` per row."""

    def __init__(self, text_config: Any) -> None:
        _require(text_config.model_type, DECODERS, "decoder")
        hidden, heads = text_config.hidden_size, text_config.num_attention_heads
        head_dim = getattr(text_config, "head_dim", None) or hidden // heads
        query = heads * head_dim
        key_value = (getattr(text_config, "num_key_value_heads", None) or heads) * head_dim
        self.layers = text_config.num_hidden_layers
        self.qkv = hidden * (query + 2 * key_value)
        self.attention = 2 * query
        self.output = query * hidden
        self.ffn = 3 * hidden * text_config.intermediate_size
        self.lm_head = hidden * text_config.vocab_size


def _samples(
    text_tokens: Tokens, visual_in: Sequence[Tokens], visual_out: Sequence[Tokens], layers: int
) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Checked counts: per sample; per layer and sample; per layer and sample."""
    text = counts("text_tokens", text_tokens)
    sides = []
    for name, side in (("visual_in", visual_in), ("visual_out", visual_out)):
        if len(side) != layers:
            raise FitPruneError(f"{name} has {len(side)} layers, the decoder has {layers}")
        rows = [counts(f"{name}[{index}]", row) for index, row in enumerate(side)]
        for index, row in enumerate(rows):
            if len(row) != len(text):
                raise FitPruneError(f"{name}[{index}] has {len(row)} samples, text_tokens has {len(text)}")
        sides.append(rows)
    return text, sides[0], sides[1]


def counts(name: str, tokens: Tokens) -> list[int]:
    """`tokens` as a list of one count per sample."""
    if isinstance(tokens, torch.Tensor):
        tokens = tokens.tolist()
    per_sample = [int(count) for count in tokens] if isinstance(tokens, Iterable) else [int(tokens)]
    if not per_sample or min(per_sample) < 0:
        raise FitPruneError(f"{name} must be one non-negative count per sample, got {tokens}")
    return per_sample


def _within_window(text_config: Any, text: list[int], entering: list[list[int]], steps: int) -> None:
    """Sliding-window attention shorter than the sequence computes less than is counted here: refuse it."""
    window = getattr(text_config, "sliding_window", None)
    longest = max(t + v for layer in entering for t, v in zip(text, layer, strict=True)) + steps
    if window is not None and longest > window:
        raise UnsupportedModel(f"cannot count FLOPs: {longest} tokens exceed the decoder's sliding window of {window}")


def _require(kind: str, known: frozenset[str], what: str) -> None:
    if kind not in known:
        raise UnsupportedModel(f"cannot count the FLOPs of the {what} '{kind}'; known: {', '.join(sorted(known))}")
