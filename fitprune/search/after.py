"""`embed_after`: calibration prompts as a pruner before the decoder leaves them."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from fitprune.composed import Composed
from fitprune.errors import FitPruneError
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.models.deepstack import left_of
from fitprune.models.parts import newline_mask
from fitprune.pruner import Pruner
from fitprune.search.prompts import Batch, Prompt, embed, on_device


class _FirstLayerReached(Exception):
    """Raised in the first layer's attention, when all that is pruned before the decoder is gone."""


@dataclass
class _Rest(Pruner):
    """Notes what enters the first layer, which rows of the prompt these are, and which of them are visual tokens."""

    name: ClassVar[str] = "calibration"
    hidden: torch.Tensor = field(default_factory=lambda: torch.empty(0), init=False)
    rows: torch.Tensor = field(default_factory=lambda: torch.empty(0), init=False)
    visual: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.bool), init=False)
    newline: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.bool), init=False)
    valid: torch.Tensor | None = field(default=None, init=False)
    repacked: bool = field(default=False, init=False)

    def observed_layers(self, layers: int) -> tuple[int, ...]:
        return (0,)

    def before_layer(self, layer: int, tokens: VisualTokens) -> None:
        batch, length = tokens.hidden.shape[:2]
        tokens.carried["row"] = torch.arange(length, device=tokens.hidden.device).expand(batch, -1)

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> None:
        self.hidden, self.rows, self.valid = tokens.hidden, tokens.carried["row"], tokens.valid
        self.visual, real = tokens.row_mask(), torch.ones_like(tokens.text_after) if tokens.valid is None else tokens.valid
        assert tokens.parts is not None
        # Only while the model runs is an offloaded newline embedding there to be compared with.
        self.newline = newline_mask(tokens.parts, real, tokens.hidden)
        self.repacked = tokens.layout.shift is not None
        raise _FirstLayerReached


@torch.no_grad()
def embed_after(model: nn.Module, batch: Batch, pruner: Pruner) -> Prompt:
    """`embed`, with what is left of each prompt under `pruner` as it enters the first layer.

    Raises:
        FitPruneError: a sample of which no visual token is left; merging in the tower that keeps position ids, which are not
            known here; and what `embed` raises.
    """
    if any(member.changes_tower and member.positions == "kept" for member in pruner.members):
        raise FitPruneError(f"no recipe can be fitted after {pruner.name} with positions='kept'; use positions='repacked'.")
    whole, rest = embed(model, batch), _Rest(newlines=pruner.newlines)
    try:
        with Composed([rest, pruner])(model):
            model(**on_device(model, batch), use_cache=False)
    except _FirstLayerReached:
        pass
    inputs = {"inputs_embeds": rest.hidden, **left_of(whole.inputs, rest.rows, rest.visual)}
    if rest.valid is not None:
        inputs["attention_mask"] = rest.valid.long()
    if not rest.repacked:
        ids = whole.inputs.get("position_ids", torch.arange(whole.visual_mask.shape[1], device=rest.rows.device)[None])
        # One row for all samples, or three axes.
        ids = ids.expand(*ids.shape[:-2], len(rest.rows), ids.shape[-1])
        inputs["position_ids"] = ids.gather(-1, rest.rows.expand(*ids.shape[:-1], -1))
    if not bool(rest.visual.any(1).all()):
        raise FitPruneError(f"{pruner.name} leaves no visual token of a calibration sample: there is nothing to fit on.")
    return Prompt(inputs, rest.visual | rest.newline, rest.newline)
