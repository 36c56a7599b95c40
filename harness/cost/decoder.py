"""The multiply-accumulates of a decoder, by arithmetic on its configuration and token counts.

Every function returns a dict from operator to MACs (multiply-accumulates, Python ints), and takes token counts per
sample, so that the cost of thousands of questions is one call. Attention is counted as the full rectangle of queries ×
keys, the causal half included: that is what the dense kernels behind eager attention and masked SDPA compute, and what
torch's FlopCounterMode and fvcore count.

Errors: UnsupportedModel for a part whose arithmetic is not known here, FitPruneError for token counts that do not fit
together.
"""

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fitprune.errors import FitPruneError, UnsupportedModel
from harness.cost.vision import require

Tokens = int | Sequence[int] | torch.Tensor
"""One count per sample; a bare int is one sample."""

Layers = list[tuple[list[int], int]]
"""Counts per sample, and of how many layers they are."""

DECODERS = frozenset({"llama", "mistral", "qwen2", "qwen2_5_vl_text", "qwen3", "qwen3_vl_text", "gemma3_text"})
"""Decoders with q, k, v, o projections and a gated FFN of three matrices."""


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
    tokens_in = sum(times * sum(map(operator.add, text, layer)) for layer, times in entering)
    tokens_out = sum(times * sum(map(operator.add, text, layer)) for layer, times in leaving)
    pairs = sum(times * sum((t + v) ** 2 for t, v in zip(text, layer, strict=True)) for layer, times in entering)
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
    keys = sum(times * sum(n * (t + v) for n, t, v in zip(steps, text, layer, strict=True)) for layer, times in entering)
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
        require(text_config.model_type, dict.fromkeys(DECODERS), "decoder")
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
) -> tuple[list[int], Layers, Layers]:
    """Checked counts per sample: of text, of visual tokens on both sides."""
    text = counts("text_tokens", text_tokens)
    sides = []
    for name, side in (("visual_in", visual_in), ("visual_out", visual_out)):
        if len(side) != layers:
            raise FitPruneError(f"{name} has {len(side)} layers, the decoder has {layers}")
        places: dict[int, int] = {}  # of the first layer with the very same counts
        times = Counter(places.setdefault(id(row), index) for index, row in enumerate(side))
        rows = {index: counts(f"{name}[{index}]", side[index]) for index in times}
        for index, row in rows.items():
            if len(row) != len(text):
                raise FitPruneError(f"{name}[{index}] has {len(row)} samples, text_tokens has {len(text)}")
        sides.append([(row, times[index]) for index, row in rows.items()])
    return text, sides[0], sides[1]


def counts(name: str, tokens: Tokens) -> list[int]:
    """`tokens` as a list of one count per sample."""
    if isinstance(tokens, torch.Tensor):
        tokens = tokens.tolist()
    per_sample = [int(count) for count in tokens] if isinstance(tokens, Iterable) else [int(tokens)]
    if not per_sample or min(per_sample) < 0:
        raise FitPruneError(f"{name} must be one non-negative count per sample, got {tokens}")
    return per_sample


def _within_window(text_config: Any, text: list[int], entering: Layers, steps: int) -> None:
    """Sliding-window attention shorter than the sequence computes less than is counted here: refuse it."""
    window = getattr(text_config, "sliding_window", None)
    longest = max(max(map(operator.add, text, layer)) for layer, _ in entering) + steps
    if window is not None and longest > window:
        raise UnsupportedModel(f"cannot count FLOPs: {longest} tokens exceed the decoder's sliding window of {window}")
