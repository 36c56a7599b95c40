"""A forward over a whole prompt, under a pruner: who is present, which rows leave, what the layers must be told."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fitprune.decode import CacheState
from fitprune.layer import Layer
from fitprune.sequence import causal_mask, take
from fitprune.tap import Observation
from fitprune.view import Attention, VisualTokens

if TYPE_CHECKING:
    from fitprune.session import Session


@dataclass(frozen=True)
class Cut:
    """Which rows of the sequence survive.

    Attributes:
        keep: bool (batch, n): the visual tokens that stay, of those present.
        rows: LongTensor (batch, T'): rows of the old sequence in the new one.
        real: bool (batch, T'): which of them are no padding; None where all are.
    """

    keep: torch.Tensor
    rows: torch.Tensor
    real: torch.Tensor | None


class Prefill:
    """A forward over a whole prompt."""

    def __init__(
        self,
        session: "Session",
        image: torch.Tensor,
        visual: torch.Tensor,
        mask: torch.Tensor | None,
        prompt: dict[str, Any],
    ) -> None:
        """`image` (batch, T): the places of images, padding excluded; `visual`: those of them that may be pruned."""
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
        session.trace.start(self.total, real.sum(1) - self.total, self.position)

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
        self._remember_cache(kwargs.get("past_key_values"))
        if self.embeddings is None:
            self.embeddings, self.mask = kwargs["position_embeddings"], kwargs.get("attention_mask")
            if self.changed:
                length = hidden.shape[1]
                self.mask = causal_mask(self.session.parts, self.valid, len(hidden), length, length, hidden)
        if self.position.shape[1]:
            keep = session.pruner.before_layer(at.index, self._tokens(hidden))
            cut = self._cut(keep) if keep is not None else None
            if cut is not None:
                hidden = self._shorten(hidden, cut)
        entered = (self.position >= 0).sum(1)
        trace.visual_in.append(entered)
        if self.state is not None:
            self.state.valid.append(self.valid)
            self.state.entered.append(hidden.shape[1])
        if self.changed:
            # Position ids with gaps would be taken for packed sequences by flash attention; the embeddings carry them.
            kwargs = {
                **kwargs,
                "attention_mask": self.mask,
                "position_embeddings": self.embeddings,
                "position_ids": None,
            }
        macs = 0
        if at.index in session.observed and self.position.shape[1]:
            output, macs = self._run_observed(at, hidden, kwargs)
        else:
            output = at.forward(hidden, **kwargs)
        trace.kept.append(self.original)
        trace.visual_out.append((self.position >= 0).sum(1))
        trace.scoring_macs.append(macs)
        return output

    def _run_observed(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, int]:
        """The layer in its two halves, so that what is dropped after attention leaves the residual stream there."""
        layer = at.module
        cut, macs = None, 0

        def show(attention: Attention) -> torch.Tensor | None:
            nonlocal cut, macs
            keep = self.session.pruner.after_attention(at.index, self._tokens(hidden), attention)
            macs = attention.macs
            cut = self._cut(keep) if keep is not None else None
            return cut.rows if cut is not None else None

        with Observation(show):
            attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **kwargs)
        # The feed-forward network is where memory peaks: what it does not need goes before, the longer mask too.
        kwargs.clear()
        residual = attended + (hidden if cut is None else self._shorten(hidden, cut))
        del attended
        return residual + layer.mlp(layer.post_attention_layernorm(residual)), macs

    def _tokens(self, hidden: torch.Tensor) -> VisualTokens:
        return VisualTokens(
            hidden=hidden,
            position=self.position,
            original=self.original,
            total=self.total,
            valid=self.valid,
            text_after=self.text_after,
            first_row=self.first_row,
            memory=self.memory,
            prompt=self.prompt,
        )

    def _cut(self, keep: torch.Tensor) -> "Cut | None":
        """Which rows survive when of the visual tokens present `keep` (batch, n) stay; None where all do.

        Samples that drop less than others are longer; the others are padded on the left, with rows they dropped.
        """
        present = self.position >= 0
        keep = keep & present
        leaving = present & ~keep
        low, high = (int(count) for count in leaving.sum(1).aminmax())
        if high == 0:
            return None
        length = self.text_after.shape[1]
        stays = torch.ones(len(keep), length + 1, dtype=torch.bool, device=keep.device)
        # Places that do not leave are written to an extra column that is cut off.
        stays = stays.scatter(1, torch.where(leaving, self.position, length), False)[:, :length]
        rows = stays.byte().argsort(dim=1, stable=True)[:, low:]
        if self.valid is None and low == high:
            return Cut(keep, rows, None)
        real = stays if self.valid is None else stays & self.valid
        return Cut(keep, rows, real.gather(1, rows))

    def _shorten(self, hidden: torch.Tensor, cut: Cut) -> torch.Tensor:
        """Bring hidden states and book-keeping to the shorter sequence of `cut`."""
        hidden = take(hidden, cut.rows)
        batch, length = cut.rows.shape
        place = torch.zeros(batch, self.text_after.shape[1], dtype=torch.long, device=hidden.device)
        place.scatter_(1, cut.rows, torch.arange(length, device=hidden.device).expand_as(cut.rows))
        n = int(cut.keep.sum(1).max())
        order = (~cut.keep).byte().argsort(dim=1, stable=True)[:, :n]
        present = cut.keep.gather(1, order)
        self.original = self.original.gather(1, order).masked_fill(~present, -1)
        self.position = place.gather(1, self.position.gather(1, order).clamp(min=0)).masked_fill(~present, -1)
        self.first_row = int(self.position.masked_fill(~present, length).min()) if n else length
        self.text_after = self.text_after.gather(1, cut.rows)
        self.valid = cut.real
        assert self.embeddings is not None
        cosine, sine = self.embeddings
        self.embeddings = (take(cosine, cut.rows, batch), take(sine, cut.rows, batch))
        self.mask = causal_mask(self.session.parts, self.valid, batch, length, length, hidden)
        self.changed = True
        return hidden

    def _remember_cache(self, cache: Any) -> None:
        if cache is not None and self.state is None:
            state = CacheState([], [], int(self.text_after.shape[1]), bool((self.total > 0).any()))
            self.state = self.session.caches[cache] = state
