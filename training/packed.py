"""Many questions about one image in one forward pass.

The image is a prefix that every question sees; questions do not see each other, and each one's positions go on from the
prefix. This gives what the prompts would give one by one (a test says so), at a fraction of the cost.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

BEFORE, AFTER = 2, 1
"""Text tokens of the prefix before and after the visual ones."""
Groups = list[tuple[int, int]]
"""Questions and tokens a question, group by group, in the order of the packed text."""


def text_states(
    model: PreTrainedModel,
    prefix: Tensor,
    text: Tensor,
    groups: Groups,
    depths: tuple[int, ...] = (),
    look: int = 0,
    lookers: Tensor | None = None,
    blank: Tensor | None = None,
    ids: Tensor | None = None,
    blind: int = 0,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Normalised states of the text, float (images, T, width), after the last decoder layer and after each of `depths`; and
    where the flat text positions `lookers`, long (M,), look: log-probabilities (M, V) over the visual tokens of the first
    head of layer `look`; and, mean over layers, heads and tokens, minus the log of the attention that does not go to the
    visual tokens `blank`, bool (images, V).

    `prefix`: float (images, 3 + V, width), what comes before the question, embedded; `text`: long (images, T), the packed
    questions; `ids`: float (V + 1,), where the visual tokens stand, counted from the first, and where the text goes on, if
    that is not one after the other (`position_ids.jittered`). In the first `blind` layers no text sees the visual tokens.
    """
    decoder = model.get_decoder()
    length = prefix.shape[1]
    hidden = torch.cat([prefix, decoder.embed_tokens(text)], dim=1)
    inner, looks, wasted = [], hidden.new_empty(0, length - BEFORE - AFTER), hidden.new_zeros(())
    idle = None
    if blank is not None:
        idle = F.pad(blank.to(hidden.dtype), (BEFORE, AFTER))[:, None, :, None]
    *places, end = (torch.arange(length - BEFORE - AFTER + 1.0) if ids is None else ids) + BEFORE
    fixed = [torch.arange(BEFORE), torch.tensor(places), end + torch.arange(AFTER)]
    packed = [(end + AFTER + torch.arange(size)).repeat(count) for count, size in groups]
    positions = torch.cat(fixed + packed).to(prefix.device)[None]
    cos, sin = decoder.rotary_emb(hidden, positions)
    veil = hidden.new_zeros(length)
    veil[BEFORE : length - AFTER] = float("-inf")
    for index, layer in enumerate(decoder.layers):
        last = index == len(decoder.layers) - 1
        if lookers is not None and index == look:
            looks = _looks(layer, hidden, cos[0], sin[0], length, lookers)
        skip, hide = (length if last else 0), (veil if index < blind else None)
        hidden, lost = _layer(layer, hidden, cos[:, None], sin[:, None], length, groups, skip, idle, hide)
        wasted = wasted + lost / len(decoder.layers)
        if index + 1 in depths:
            inner.append(_norm(decoder.norm, hidden[:, length:]))
    return _norm(decoder.norm, hidden), inner, looks, wasted


def _looks(layer: LlamaDecoderLayer, hidden: Tensor, cos: Tensor, sin: Tensor, length: int, lookers: Tensor) -> Tensor:
    attention, total = layer.self_attn, hidden.shape[1] - length
    normed = _norm(layer.input_layernorm, hidden)
    image, place = lookers // total, length + lookers % total
    visual = slice(BEFORE, length - AFTER)
    weights = (projection.weight[: attention.head_dim] for projection in (attention.q_proj, attention.k_proj))
    query, key = (
        F.linear(states, weight) for states, weight in zip((normed[image, place], normed[:, visual]), weights, strict=True)
    )
    query, key = _turn(query, cos[place], sin[place]) / math.sqrt(attention.head_dim), _turn(key, cos[visual], sin[visual])
    return (key[image] @ query[:, :, None]).squeeze(2).log_softmax(dim=1)


def _norm(norm: LlamaRMSNorm, hidden: Tensor) -> Tensor:
    return F.rms_norm(hidden, (hidden.shape[-1],), norm.weight, norm.variance_epsilon)


def _turn(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def _layer(
    layer: LlamaDecoderLayer,
    hidden: Tensor,
    cos: Tensor,
    sin: Tensor,
    length: int,
    groups: Groups,
    skip: int,
    idle: Tensor | None,
    hide: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One decoder layer; the first `skip` positions only serve as keys and values and are left out of the result. With it,
    minus the log of the attention that does not go to the prefix positions `idle`, float (images, 1, length, 1). `hide`,
    float (length,), is added to the scores that text, and what of the prefix comes after the image, gives the prefix.
    """
    attention, images, total = layer.self_attn, hidden.shape[0], hidden.shape[1]
    normed = _norm(layer.input_layernorm, hidden)

    def heads(states: Tensor) -> Tensor:
        return states.view(images, states.shape[1], -1, attention.head_dim).transpose(1, 2)

    weight = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    query, key, value = map(heads, F.linear(normed, weight).chunk(3, dim=-1))
    query, key = _turn(query, cos, sin) / math.sqrt(attention.head_dim), _turn(key, cos, sin)
    shared_key, shared_value = key[:, :, :length].transpose(-1, -2), value[:, :, :length]
    mixed = []
    lost: list[Tensor] = []

    def note(weights: Tensor) -> None:
        if idle is not None:
            lost.append(-(1 - (weights @ idle).flatten() * (1 - 1e-4)).log())

    if not skip:
        scores = query[:, :, :length] @ shared_key + _causal(length, query)
        if hide is not None:
            scores[:, :, -AFTER:] += hide
        weights = scores.softmax(dim=-1)
        note(weights)
        mixed.append(weights @ shared_value)
    start = length
    for count, size in groups:
        stop = start + count * size
        asked, own_key, own_value = (states[:, :, start:stop] for states in (query, key, value))
        split = (images, -1, count, size, attention.head_dim)
        own = asked.reshape(split) @ own_key.reshape(split).transpose(-1, -2) + _causal(size, query)
        seen = asked @ shared_key if hide is None else asked @ shared_key + hide
        scores = torch.cat([seen, own.flatten(2, 3)], dim=-1).softmax(dim=-1)
        note(scores[..., :length])
        inner = scores[..., length:].reshape(*split[:3], size, size) @ own_value.reshape(split)
        mixed.append(scores[..., :length] @ shared_value + inner.flatten(2, 3))
        start = stop
    joined = torch.cat(mixed, dim=2).transpose(1, 2).reshape(images, total - skip, -1)
    hidden = hidden[:, skip:] + attention.o_proj(joined)
    normed = _norm(layer.post_attention_layernorm, hidden)
    gate, up = F.linear(normed, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])).chunk(2, dim=-1)
    wasted = torch.cat(lost).mean() if lost else hidden.new_zeros(())
    return hidden + layer.mlp.down_proj(F.silu(gate) * up), wasted


def _causal(size: int, like: Tensor) -> Tensor:
    return torch.full((size, size), float("-inf"), dtype=like.dtype, device=like.device).triu(1)
