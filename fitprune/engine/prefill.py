"""A forward over a whole prompt, under a pruner: who is present, which rows leave, what the layers must be told."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fitprune.engine.decode import CacheState
from fitprune.engine.layer import Layer
from fitprune.engine.sequence import causal_mask, take
from fitprune.engine.tap import Observation
from fitprune.errors import UnsupportedModel
from fitprune.interface.selection import Selection
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.interface.vision import Vision, numbers_of_samples
from fitprune.models.releases import cache_in, release

if TYPE_CHECKING:
    from fitprune.engine.session import Session
    from fitprune.engine.tower import TowerRun


@dataclass(frozen=True)
class Cut:
    """Which rows of the sequence survive.

    Attributes:
        keep: bool (batch, n): the visual tokens that stay, of those present.
        rows: LongTensor (batch, T'): rows of the old sequence in the new one.
        real: bool (batch, T'): which of them are no padding; None where all are.
        selection: in which order, and as what, they go on; None for their own.
    """

    keep: torch.Tensor
    rows: torch.Tensor
    real: torch.Tensor | None
    selection: Selection | None = None


class Prefill:
    """A forward over a whole prompt."""

    def __init__(
        self,
        session: "Session",
        image: torch.Tensor,
        visual: torch.Tensor,
        mask: torch.Tensor | None,
        prompt: dict[str, Any],
        tower: "TowerRun | None" = None,
    ) -> None:
        """`image` (batch, T): the places of images, padding excluded; `visual`: those of them that may be pruned; `tower`: the
        pass of these images through the vision tower, where the pruner looks into it."""
        self.session, self.prompt = session, prompt
        batch, length = visual.shape
        device = visual.device
        real = torch.ones_like(visual) if mask is None else mask.to(device=device, dtype=torch.bool)
        self.valid = None if bool(real.all()) else real
        self.total = visual.sum(1)
        n = int(self.total.max())
        # Stable sort brings each row's visual positions to the front, in order.
        position = (~visual).long().argsort(dim=1, stable=True)[:, :n]
        present = torch.arange(n, device=device)[None] < self.total[:, None]
        self.position = position.masked_fill(~present, -1)
        self.original = torch.arange(n, device=device).expand(batch, n).masked_fill(~present, -1)
        self.first_row = int(position.masked_fill(~present, length).min()) if n else length
        last = length - 1 - image.flip(1).byte().argmax(1)
        after = torch.arange(length, device=device)[None] > last[:, None]
        self.text_after = after & real & (self.total > 0)[:, None]
        self.memory: dict[str, Any] = {}
        # Whether the layers are given a mask from here rather than the decoder's: in a padded batch from the start.
        self.changed = self.valid is not None and n > 0
        self.mask: Any = None
        self.embeddings: tuple[torch.Tensor, torch.Tensor] | None = None
        self.state: CacheState | None = None
        self.tower = tower
        self.numbers = self._patch_numbers(image) if tower is not None and n else None
        self.reordered = False
        # Tokens that were taken out under repacked positions, (batch,); one tensor for all layers that they are missing from.
        self.gone = torch.zeros_like(self.total) if session.pruner.positions == "repacked" else None
        session.trace.start(self.total, real.sum(1) - self.total, self.position)
        session.trace.tower = tower.counts if tower is not None else None

    def arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The decoder's arguments, with the mask of a padded batch replaced by an empty one.

        The decoder would hold its (batch, 1, T, T) mask to the end, beside those of the shorter sequences; so the layers are
        given a mask from here from the start. transformers passes on a 4-D mask as it is.
        """
        if not self.changed:
            return kwargs
        return {**kwargs, "attention_mask": self.position.new_zeros(len(self.position), 1, 0, 0, dtype=torch.bool)}

    def run(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """One layer: prune before it, run it, prune after its attention where the pruner asks for it."""
        session, trace = self.session, self.session.trace
        self._remember_cache(cache_in(kwargs))
        if self.embeddings is None:
            self.embeddings, self.mask = kwargs["position_embeddings"], kwargs.get("attention_mask")
            if self.changed:
                length = hidden.shape[1]
                self.mask = causal_mask(self.session.parts, self.valid, len(hidden), length, length, hidden)
        macs = 0
        if self.position.shape[1]:
            hidden, macs = self._prune_before(at, hidden)
        entered = (self.position >= 0).sum(1)
        trace.visual_in.append(entered)
        if self.state is not None:
            self.state.valid.append(self.valid)
            self.state.entered.append(hidden.shape[1])
            self.state.shift.append(self.gone)
        if self.changed:
            # Position ids with gaps would be taken for packed sequences by flash attention; the embeddings carry them.
            kwargs = {
                **kwargs,
                "attention_mask": self.mask,
                "position_embeddings": self.embeddings,
                "position_ids": None,
            }
        if at.index in session.observed and self.position.shape[1]:
            output, spent = self._run_observed(at, hidden, kwargs)
            macs += spent
        else:
            output = at.forward(hidden, **kwargs)
        trace.kept.append(self._kept())
        trace.visual_out.append((self.position >= 0).sum(1))
        trace.scoring_macs.append(macs)
        return output

    def _prune_before(self, at: Layer, hidden: torch.Tensor) -> tuple[torch.Tensor, int]:
        """What the pruner takes away before a layer; also the multiply-accumulates that this took."""
        macs = 0
        if at.index == 0 and self.tower is not None:
            macs += self.tower.macs
            if self.tower.seats is not None:
                hidden = self._apply(self._seated(self._tokens(at, hidden)), hidden)
        tokens = self._tokens(at, hidden)
        choice = self.session.pruner.before_layer(at.index, tokens)
        macs += tokens.macs
        return (hidden if choice is None else self._apply(choice, hidden)), macs

    def _apply(self, choice: "torch.Tensor | Selection", hidden: torch.Tensor) -> torch.Tensor:
        cut = self._cut(choice)
        return hidden if cut is None else self._shorten(hidden, cut)

    def _seated(self, tokens: VisualTokens) -> torch.Tensor | Selection:
        """The tokens that the tower ended with: of smaller pictures in the order of the prompt, row by row across tiles; of
        merged tokens in that of the tower, view by view."""
        vision = tokens.vision
        assert vision.seats is not None
        views, count = vision.seats.shape
        rank = vision.seats.new_full((views, vision.grid[0] * vision.grid[1]), -1)
        rank.scatter_(1, vision.seats, torch.arange(count, device=rank.device).expand(views, -1))
        own = vision.of_patches(rank + 1) - 1
        if self.tower is not None and not self.tower.merges:
            return own >= 0
        last = views * count
        order = torch.where(own >= 0, vision.view * count + own, last).sort(dim=1)
        most = int((order.values < last).sum(1).max())
        return Selection(order.indices.masked_fill(order.values == last, -1)[:, :most])

    def _run_observed(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, int]:
        """The layer in its two halves, so that what is dropped after attention leaves the residual stream there."""
        layer = at.module
        cut, macs = None, 0

        def show(attention: Attention) -> torch.Tensor | None:
            nonlocal cut, macs
            tokens = self._tokens(at, hidden)
            keep = self.session.pruner.after_attention(at.index, tokens, attention)
            macs = attention.macs + tokens.macs
            cut = self._cut(keep) if keep is not None else None
            return cut.rows if cut is not None else None

        with Observation(show) as observation:
            attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **kwargs)
        if not observation.shown:
            raise UnsupportedModel(
                f"{type(layer.self_attn).__name__} does not pass through the attention interface of {release()} (replaced, "
                "fused or quantised). Its queries and keys cannot be seen; load the model without that."
            )
        # The feed-forward network is where memory peaks: what it does not need goes before, the longer mask too.
        kwargs.clear()
        residual = attended + (hidden if cut is None else self._shorten(hidden, cut))
        del attended
        return residual + layer.mlp(layer.post_attention_layernorm(residual)), macs

    def _tokens(self, at: Layer, hidden: torch.Tensor) -> VisualTokens:
        tokens = VisualTokens(
            hidden=hidden,
            position=self.position,
            original=self.original,
            total=self.total,
            valid=self.valid,
            text_after=self.text_after,
            first_row=self.first_row,
            memory=self.memory,
            prompt=self.prompt,
            parts=self.session.parts,
            layer=at.module,
            embeddings=self.embeddings,
        )
        if self.tower is not None and self.numbers is not None:
            own = self.numbers.gather(1, self.original.clamp(min=0)).masked_fill(self.original < 0, -1)
            tokens.seen = Vision(self.tower, own, tokens.spend)
        return tokens

    def _patch_numbers(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, n): the flat patch number of each visual token; see `Vision`."""
        assert self.tower is not None
        numbers = numbers_of_samples(self.tower.places or [], image.sum(1).tolist(), image)
        if numbers is None:
            raise UnsupportedModel("the images of this batch cannot be matched to the places for them in its prompts.")
        return numbers.gather(1, self.position.clamp(min=0)).masked_fill(self.position < 0, -1)

    def _kept(self) -> torch.Tensor:
        """The indices of the visual tokens present, as `Trace.kept` has them."""
        if not self.reordered:
            return self.original
        last = torch.iinfo(torch.long).max
        kept = self.original.masked_fill(self.original < 0, last).sort(dim=1).values
        most = int((kept < last).sum(1).max()) if kept.shape[1] else 0
        return kept.masked_fill(kept == last, -1)[:, :most]

    def _cut(self, choice: "torch.Tensor | Selection") -> "Cut | None":
        """Which rows survive when of the visual tokens present these stay; None where all do, as they are.

        Samples that drop less than others are longer; the others are padded on the left, with rows they dropped.
        """
        present = self.position >= 0
        selection = choice if isinstance(choice, Selection) else None
        keep = choice.mask(present) if isinstance(choice, Selection) else choice & present
        leaving = present & ~keep
        low, high = (int(count) for count in leaving.sum(1).aminmax())
        if high == 0 and selection is None:
            return None
        length = self.text_after.shape[1]
        stays = torch.ones(len(keep), length + 1, dtype=torch.bool, device=keep.device)
        # Places that do not leave are written to an extra column that is cut off.
        stays = stays.scatter(1, torch.where(leaving, self.position, length), False)[:, :length]
        rows = stays.byte().argsort(dim=1, stable=True)[:, low:]
        if self.valid is None and low == high:
            return Cut(keep, rows, None, selection)
        real = stays if self.valid is None else stays & self.valid
        return Cut(keep, rows, real.gather(1, rows), selection)

    def _shorten(self, hidden: torch.Tensor, cut: Cut) -> torch.Tensor:
        """Bring hidden states and book-keeping to the shorter sequence of `cut`."""
        batch, length = cut.rows.shape
        place = torch.zeros(batch, self.text_after.shape[1], dtype=torch.long, device=hidden.device)
        place.scatter_(1, cut.rows, torch.arange(length, device=hidden.device).expand_as(cut.rows))
        n = int(cut.keep.sum(1).max())
        order = (~cut.keep).byte().argsort(dim=1, stable=True)[:, :n]
        present = cut.keep.gather(1, order)
        position = place.gather(1, self.position.gather(1, order).clamp(min=0)).masked_fill(~present, -1)
        rows, original = cut.rows, self.original.gather(1, order)
        if cut.selection is not None:
            named = cut.selection.index[:, :n].clamp(min=0)
            rows = _place(rows, position, self.position.gather(1, named))
            original = self.original.gather(1, named)
            if cut.selection.made is not None:
                original = original.masked_fill(cut.selection.made[:, :n], -1)
            self.reordered = True
        hidden = take(hidden, rows)
        if cut.selection is not None and cut.selection.hidden is not None:
            hidden = _place(hidden, position, cut.selection.hidden[:, :n].to(hidden.dtype))
        self.original, self.position = original.masked_fill(~present, -1), position
        self.first_row = int(self.position.masked_fill(~present, length).min()) if n else length
        self.text_after = self.text_after.gather(1, cut.rows)
        self.valid = cut.real
        assert self.embeddings is not None
        if self.gone is not None:
            self.gone = self.total - present.sum(1)
            real = torch.ones_like(rows) if self.valid is None else self.valid.long()
            ids = (real.cumsum(1) - 1).clamp(min=0)
            self.embeddings = self.session.parts.decoder.rotary_emb(hidden, ids)
        else:
            cosine, sine = self.embeddings
            self.embeddings = (take(cosine, rows, batch), take(sine, rows, batch))
        self.mask = causal_mask(self.session.parts, self.valid, batch, length, length, hidden)
        self.changed = True
        return hidden

    def _remember_cache(self, cache: Any) -> None:
        if cache is not None and self.state is None:
            state = CacheState([], [], int(self.text_after.shape[1]), bool((self.total > 0).any()), [])
            self.state = self.session.caches[cache] = state


def _place(sequence: torch.Tensor, position: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`sequence` (batch, T, …) with `values` (batch, n, …) at `position` (batch, n); those at -1 are left out."""
    wide = torch.cat([sequence[:, :1], sequence], 1)
    index = (position + 1).view(*position.shape, *[1] * (values.ndim - 2)).expand_as(values)
    return wide.scatter(1, index, values)[:, 1:]
