"""Prefill under a pruner: tracks which visual tokens remain, and rebuilds rotary embeddings and masks after each cut."""

from typing import Any

import torch

from fitprune.engine.context import Layer, RunContext
from fitprune.engine.cuts import Cut, plan_cut, tower_choice
from fitprune.engine.decode import CacheState
from fitprune.engine.masks import causal_mask
from fitprune.engine.tap import Observation
from fitprune.engine.tower import TowerRun
from fitprune.errors import UnsupportedModel
from fitprune.interface.attention import Attention
from fitprune.interface.gather import take
from fitprune.interface.layout import Layout
from fitprune.interface.selection import Selection
from fitprune.interface.tokens import LayerContext, VisualTokens
from fitprune.interface.vision import index_of_samples
from fitprune.models.execution import execution_device, moved, own_precision
from fitprune.models.releases import release


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
        batch, length = visual.shape
        real = None if mask is None else mask.to(device=visual.device, dtype=torch.bool)
        self.layout = Layout.of_prompt(visual, image, real)
        # Layers may lie on several devices. The trace is kept on the first.
        self.home = visual.device
        self.memory: dict[str, Any] = {}
        # True once the layers are given our own mask: from the start in a padded batch, else after the first cut.
        self.changed = self.layout.valid is not None and not self.layout.empty
        self.mask: Any = None
        self.embeddings: tuple[torch.Tensor, torch.Tensor] | None = None
        # Images are encoded, so what the tower showed is complete.
        self.record = tower.record() if tower is not None else None
        self.global_index = self._global_index(image) if tower is not None and not self.layout.empty else None
        self.repacked = context.pruner.positions == "repacked"
        self.state = CacheState([], length, not self.layout.empty, self.repacked)
        tokens = real.sum(1) if real is not None else torch.full((batch,), length, device=visual.device)
        context.trace.start(self.layout.total, tokens - self.layout.total, self.layout.position)
        context.trace.tower = tower.counts if tower is not None else None

    def arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The decoder's arguments, with the mask of a padded batch replaced by an empty one.

        The decoder would hold its (batch, 1, T, T) mask to the end, beside those of the shorter sequences. So the layers get
        our own mask from the start. transformers passes on a 4-D mask as it is.
        """
        if not self.changed:
            return kwargs
        position = self.layout.position
        return {**kwargs, "attention_mask": position.new_zeros(len(position), 1, 0, 0, dtype=torch.bool)}

    def run(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """One layer: prune before it, run it, prune after its attention where the pruner asks for it."""
        trace = self.context.trace
        hidden, kwargs = self._follow(at, hidden, kwargs)
        if self.embeddings is None:
            self.embeddings, self.mask = kwargs["position_embeddings"], kwargs.get("attention_mask")
            if self.changed:
                self.mask = causal_mask(self.context.parts, hidden, self.layout.valid)
        macs = 0
        if not self.layout.empty:
            hidden, macs = self._prune_before(at, hidden)
        trace.visual_in.append(self.layout.count.to(self.home))
        self.state.layouts.append(self.layout)
        if self.changed:
            # Position ids with gaps would be taken for packed sequences by flash attention; the embeddings carry them.
            kwargs = {
                **kwargs,
                "attention_mask": self.mask,
                "position_embeddings": self.embeddings,
                "position_ids": None,
            }
        if at.index in self.context.observed and not self.layout.empty:
            output, spent = self._run_observed(at, hidden, kwargs)
            macs += spent
        else:
            output = at.forward(hidden, **kwargs)
        trace.kept.append(self.layout.kept.to(self.home))
        trace.visual_out.append(self.layout.count.to(self.home))
        trace.scoring_macs.append(macs)
        return output

    def _follow(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """A layer's arguments on the device on which it runs; what is kept from layer to layer follows."""
        device = execution_device(at.module)
        if device != self.layout.position.device:
            self.layout = self.layout.to(device)
            self.mask, self.embeddings, self.global_index, self.memory = moved(
                (self.mask, self.embeddings, self.global_index, self.memory), device
            )
        return hidden.to(device), kwargs if device == self.home else moved(kwargs, device)

    def _prune_before(self, at: Layer, hidden: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Hidden states after what the pruner drops before a layer; and the multiply-accumulates that choosing took."""
        macs = 0
        if at.index == 0 and self.tower is not None:
            macs += self.tower.macs
            if self.tower.patch_index is not None:
                vision = self._tokens(at, hidden).vision
                hidden = self._apply(tower_choice(vision, in_prompt_order=not self.tower.merges), hidden)
        tokens = self._tokens(at, hidden)
        with own_precision(hidden):
            choice = self.context.pruner.before_layer(at.index, tokens)
        macs += tokens.macs
        return (hidden if choice is None else self._apply(choice, hidden)), macs

    def _apply(self, choice: torch.Tensor | Selection, hidden: torch.Tensor) -> torch.Tensor:
        cut = plan_cut(self.layout, choice)
        return hidden if cut is None else self._shorten(cut, hidden)

    def _run_observed(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, int]:
        """The layer in its two halves, so that what is dropped after attention leaves the residual stream there."""
        layer = at.module
        cut, macs = None, 0

        def show(attention: Attention) -> torch.Tensor | None:
            nonlocal cut, macs
            tokens = self._tokens(at, hidden)
            with own_precision(hidden):
                keep = self.context.pruner.after_attention(at.index, tokens, attention)
            macs = attention.macs + tokens.macs
            cut = plan_cut(self.layout, keep) if keep is not None else None
            return cut.rows if cut is not None else None

        with Observation(show) as observation:
            attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **kwargs)
        if not observation.shown:
            raise UnsupportedModel(
                f"{type(layer.self_attn).__name__} does not pass through the attention interface of {release()} (replaced, "
                "fused or quantised). Its queries and keys cannot be seen; load the model without that."
            )
        if cut is not None and attended.shape[1] != cut.rows.shape[1]:
            raise UnsupportedModel(
                f"{type(layer.self_attn).__name__} does not call its o_proj as a module (fused or quantised), so nothing can "
                "be dropped before it; load the model without that."
            )
        # The feed-forward network is where memory peaks: what it does not need goes before, the longer mask too.
        kwargs.clear()
        residual = attended + (hidden if cut is None else self._shorten(cut, hidden))
        del attended
        return residual + layer.mlp(layer.post_attention_layernorm(residual)), macs

    def _tokens(self, at: Layer, hidden: torch.Tensor) -> VisualTokens:
        around = LayerContext(self.context.parts, at.module, self.prompt, self.embeddings, self.record, self.global_index)
        return VisualTokens(hidden, self.layout, self.memory, around)

    def _global_index(self, image: torch.Tensor) -> torch.Tensor:
        """LongTensor (batch, n): see `LayerContext.global_index`."""
        images = self.record.global_index if self.record is not None else []
        index = index_of_samples(images, image.sum(1).tolist(), image)
        if index is None:
            raise UnsupportedModel("the images of this batch cannot be matched to the positions for them in its prompts.")
        return index.gather(1, self.layout.position.clamp(min=0)).masked_fill(~self.layout.present, -1)

    def _shorten(self, cut: Cut, hidden: torch.Tensor) -> torch.Tensor:
        """Bring hidden states, embeddings and mask to the shorter sequence of `cut`."""
        hidden, self.layout = cut.shorten(hidden), cut.layout
        assert self.embeddings is not None
        if self.repacked:
            self.embeddings = moved(self.context.parts.decoder.rotary_emb(hidden, self.layout.position_ids()), hidden.device)
        else:
            cosine, sine = self.embeddings
            self.embeddings = (take(cosine, cut.rows, len(hidden)), take(sine, cut.rows, len(hidden)))
        self.mask = causal_mask(self.context.parts, hidden, self.layout.valid)
        self.changed = True
        return hidden
