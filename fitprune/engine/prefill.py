"""Prefill under a pruner: tracks which visual tokens remain, and rebuilds rotary embeddings and masks after each cut."""

import dataclasses
import functools
from typing import Any

import torch

from fitprune.engine.context import Layer, Member, RunContext
from fitprune.engine.cuts import Cut, plan_cut, tower_choice
from fitprune.engine.masks import Biased, biased, causal_mask, replaced_mask
from fitprune.engine.tap import Observation, Shorten
from fitprune.engine.tower import TowerRun
from fitprune.errors import UnsupportedModel
from fitprune.interface.attention import Attention
from fitprune.interface.gather import take
from fitprune.interface.layout import Keep, Layout, prompt_layout
from fitprune.interface.selection import Selection
from fitprune.interface.tokens import LayerContext, VisualTokens
from fitprune.interface.tower import TowerRecord
from fitprune.interface.trace import PrefillFacts
from fitprune.interface.vision import index_of_samples
from fitprune.models.deepstack import DeepStack
from fitprune.models.execution import execution_device, moved, own_precision
from fitprune.models.kv_cache import CacheState, HeldRows
from fitprune.models.parts import fed_forward, joined, seen_together
from fitprune.models.releases import release
from fitprune.models.rotary import Rotary, of_decoder, of_layer, of_positions
from fitprune.scoring.macs import Macs


class Prefill:
    """A forward over a whole prompt."""

    def __init__(
        self,
        context: RunContext,
        image: torch.Tensor,
        visual: torch.Tensor,
        mask: torch.Tensor | None,
        prompt: dict[str, Any],
        tower: TowerRun | None = None,
    ) -> None:
        """Start a prefill, and the trace of it.

        Args:
            context: the run that it belongs to.
            image: bool (batch, T): the positions of images, padding excluded.
            visual: bool (batch, T): those of them that may be pruned.
            mask: (batch, T), 0 for padding; None where all tokens are real.
            prompt: see `LayerContext.prompt`.
            tower: the pass of these images through the vision tower, where the pruner looks into it.
        """
        self.context, self.prompt, self.tower = context, prompt, tower
        real = None if mask is None else mask.to(device=visual.device, dtype=torch.bool)
        self.layout = prompt_layout(visual, image, real)
        # Layers may lie on several devices. The trace is kept on the first.
        self.home = visual.device
        # Whether position ids have gaps that a cut has left.
        self.gaps = False
        self.together = None if self.layout.empty else seen_together(context.parts, prompt, image)
        # True once the layers get our own mask: from the start where it is not plainly causal, else after the first cut.
        self.changed = self.together is not None or (self.layout.valid is not None and not self.layout.empty)
        self.mask: Any = None
        self.bias: Biased | None = None
        self.deep: DeepStack | None = None
        self.rotary: Rotary | None = None
        # Images are encoded, so what the tower showed is complete.
        self.record = tower.record() if tower is not None else None
        self.global_index = (
            _global_index(self.record, image, self.layout) if tower is not None and not self.layout.empty else None
        )
        self.members = Member.all_of(context, self.global_index)
        text_from = None if self.layout.empty else self.layout.host.text_from
        self.rows = PromptRows(self.layout)
        self.state = CacheState(self.rows.held, text_from)
        self.facts = PrefillFacts(self.layout, tower.counts if tower is not None else None)
        context.trace.start(self.facts)

    def arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The decoder's arguments, without DeepStack's features, and with the mask of a padded batch replaced by an empty one.

        The decoder would hold its (batch, 1, T, T) mask to the end, beside those of the shorter sequences. So the layers get
        our own mask from the start.
        """
        if not self.layout.empty:
            self.deep, kwargs = DeepStack.taken_from(kwargs, self.layout.place)
        if not self.changed:
            return kwargs
        if self.layout.valid is not None and kwargs.get("position_ids") is None:
            self.rows.counted = (~self.layout.valid).sum(1)
        return {**kwargs, "attention_mask": replaced_mask(self.layout.place)}

    def run(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """One layer: prune before it, run it, prune after its attention where the pruner asks for it."""
        hidden, kwargs = self._follow(at, hidden, kwargs)
        if self.rotary is None:
            self.rotary = of_decoder(self.context.parts.decoder, hidden, kwargs)
            self.mask = self._causal_mask(hidden) if self.changed else kwargs.get("attention_mask")
        spent: list[Macs] = []
        if not self.layout.empty:
            hidden = self._prune_before(at, hidden, spent)
        self.facts.entered.append(self.layout)
        self._take_bias(at, hidden)
        self.state.layers.append(self.rows.of(self.layout, self.bias))
        if self.changed or self.bias is not None:
            # Position ids with gaps would be taken for packed sequences by flash attention; the embeddings carry them.
            kwargs = {
                **kwargs,
                "attention_mask": self.mask if self.bias is None else self.bias.mask,
                "position_embeddings": self._embeddings(at),
                "position_ids": None,
            }
        if any(at.index in member.observed for member in self.members) and not self.layout.empty:
            output = self._run_observed(at, hidden, kwargs, spent)
        else:
            output = at.forward(hidden, **kwargs)
        self.facts.left.append(self.layout)
        self.facts.scoring.append(spent)
        return output if self.deep is None else self.deep.add(at.index, output, self.layout.position, self.layout.original)

    def _follow(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """A layer's arguments on the device on which it runs; what is kept from layer to layer follows."""
        device = execution_device(at.module)
        if device != self.layout.place.device:
            self.layout = self.layout.to(device)
            kept = (self.mask, self.rotary, self.global_index, self.together)
            self.mask, self.rotary, self.global_index, self.together = moved(kept, device)
            for member in self.members:
                member.to(device)
        return hidden.to(device), kwargs if device == self.home else moved(kwargs, device)

    def _take_bias(self, at: Layer, hidden: torch.Tensor) -> None:
        """Ask for what a layer's attention is biased by."""
        for member in () if self.layout.empty else self.members:
            if member.pruner.biases_attention:
                with own_precision(hidden):
                    bias = member.pruner.attention_bias(at.index, self._tokens(at, hidden, member))
                if bias is None or self.bias is None or not self.bias.of(bias, self.layout):
                    mask = self.mask if self.changed or bias is None else self._causal_mask(hidden)
                    self.bias = biased(self.context.parts, bias, self.layout, mask, hidden.dtype)

    def _prune_before(self, at: Layer, hidden: torch.Tensor, spent: list[Macs]) -> torch.Tensor:
        """Hidden states after what the pruners drop before a layer; what choosing took is added to `spent`."""
        prompt = self.layout
        if at.index == 0 and self.tower is not None:
            spent.append(self.tower.macs)
            if self.tower.patch_index is not None:
                vision = self._tokens(at, hidden, self.members[0]).vision
                hidden = self._apply(tower_choice(vision, in_prompt_order=not self.tower.merges), hidden, self.members[0])
        for member in self.members:
            if self.layout.empty:
                break
            if at.index == 0:
                member.begin(prompt, self.layout, self.global_index)
            tokens = self._tokens(at, hidden, member)
            with own_precision(hidden):
                choice = member.pruner.before_layer(at.index, tokens)
            spent += tokens.spent
            hidden = hidden if choice is None else self._apply(choice, hidden, member)
        if at.index == 0:
            for member in self.members:
                member.begin(prompt, self.layout, self.global_index)
        return hidden

    def _apply(self, choice: torch.Tensor | Keep | Selection, hidden: torch.Tensor, member: Member) -> torch.Tensor:
        return self._shorten(plan_cut(self.layout, choice), hidden, member)

    def _run_observed(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any], spent: list[Macs]) -> torch.Tensor:
        """The layer in its two halves, so that what is dropped after attention leaves the residual stream there."""
        layer = at.module
        cuts: list[tuple[Cut | None, Member]] = []

        def show(attention: Attention) -> Shorten | None:
            rows, seen, layout, attention.together = None, self.layout, self.layout, self.together
            for member in self.members:
                if at.index not in member.observed or layout.empty:
                    continue
                tokens = self._tokens(at, hidden, member, seen)
                with own_precision(hidden):
                    keep = member.pruner.after_attention(at.index, tokens, attention)
                spent.extend(tokens.spent)
                if keep is None:
                    continue
                cut = plan_cut(layout, keep)
                cuts.append((cut, member))
                if cut is not None:
                    # The next one rates what is left, by the same attention: in the sequence as it was.
                    rows, layout = cut.rows if rows is None else rows.gather(1, cut.rows), cut.layout
                    seen = seen.narrowed(keep) if member is not self.members[-1] else seen
            spent.extend(attention.spent)
            return None if rows is None else functools.partial(take, rows=rows, samples=layout.samples)

        with Observation(show) as observation:
            attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **kwargs)
        if not observation.shown:
            raise UnsupportedModel(
                f"{type(layer.self_attn).__name__} does not pass through the attention interface of {release()} (replaced, "
                "fused or quantised). Its queries and keys cannot be seen; load the model without that."
            )
        if observation.shorten is not None:
            raise UnsupportedModel(
                f"{type(layer.self_attn).__name__} of decoder layer {at.index} does not call its o_proj as a module, before "
                "which pruned tokens leave; load the model without what replaced it."
            )
        # The feed-forward network is where memory peaks: what it does not need goes before, the longer mask too.
        kwargs.clear()
        left = hidden
        for cut, member in cuts:
            left = self._shorten(cut, left, member)
        residual = joined(layer, attended) + left
        del attended, left
        return residual + fed_forward(layer, residual)

    def _tokens(self, at: Layer, hidden: torch.Tensor, member: Member, layout: Layout | None = None) -> VisualTokens:
        """What a member is shown: the tokens present, or those in `layout`."""
        parts, total = self.context.parts, self.layout.total
        around = LayerContext(parts, at.module, self.prompt, self._embeddings(at), self.record, member.global_index, total)
        seen = member.layout(self.layout if layout is None else layout)
        return VisualTokens(hidden, seen, member.memory, around, carried=member.carried)

    def _embeddings(self, at: Layer) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Cosine and sine of the rotary embedding, as a layer takes them; None before the first layer."""
        return of_layer(self.rotary, self.context.parts.decoder, at.module)

    def _causal_mask(self, hidden: torch.Tensor) -> Any:
        return causal_mask(self.context.parts, hidden, self.layout.valid, together=self.together)

    def _shorten(self, cut: Cut | None, hidden: torch.Tensor, member: Member) -> torch.Tensor:
        """Bring hidden states, embeddings and mask to the shorter sequence of a member's `cut`; None where nothing leaves."""
        if cut is None and not (member.repacked and self.gaps):
            return hidden
        if cut is not None:
            hidden, self.layout = cut.shorten(hidden), cut.layout
            member.cut = True
            for each in self.members:
                each.follow(cut)
        if member.repacked:
            # Also where nothing leaves: in another batch, something may.
            self.layout = dataclasses.replace(self.layout, shift=self.layout.removed)
            assert self.rotary is not None
            self.rotary = of_positions(self.context.parts.decoder, hidden, self.layout.position_ids(), self.rotary)
        elif cut is not None:
            assert self.rotary is not None
            self.rotary = {each: cut.take(part) for each, part in self.rotary.items()}
        if cut is not None and self.together is not None:
            self.together = self.together.gather(1, cut.rows)
        self.gaps = not member.repacked
        self.mask = self._causal_mask(hidden)
        self.changed = True
        return hidden


class PromptRows:
    """What the KV cache of the layer at hand is about to hold of a prompt.

    Attributes:
        counted: (batch,), padding that the position ids count: those of a repacked layer do not; None for none.
        held: of the last layer, whose layout was `layout`.
    """

    def __init__(self, layout: Layout) -> None:
        self.counted: torch.Tensor | None = None
        self.layout, self.held = layout, HeldRows(layout.shape[1], layout.valid)

    def of(self, layout: Layout, biased: Biased | None) -> HeldRows:
        """What a layer with this layout and this bias of its attention holds."""
        bias = None if biased is None else biased.rows
        if bias is not self.held.bias:
            self.held = dataclasses.replace(self.held, bias=bias)
        if layout is not self.layout:
            removed = layout.shift
            if removed is self.layout.shift:
                removed = self.held.removed
            elif removed is not None and self.counted is not None:
                removed = removed + self.counted.to(removed.device)
            self.layout, self.held = layout, HeldRows(layout.shape[1], layout.valid, removed, bias)
        return self.held


def _global_index(record: TowerRecord | None, image: torch.Tensor, layout: Layout) -> torch.Tensor:
    """LongTensor (batch, n): see `LayerContext.global_index`. `image` is bool (batch, T): the positions of images."""
    index = index_of_samples([] if record is None else record.global_index, image.sum(1).tolist(), image)
    if index is None:
        raise UnsupportedModel("the images of this batch cannot be matched to the positions for them in its prompts.")
    return index.gather(1, layout.place).masked_fill(layout.absent, -1)
