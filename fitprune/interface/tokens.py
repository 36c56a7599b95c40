"""What a pruner sees of a prefill: the visual tokens present, and where they are."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from fitprune.engine.sequence import take
from fitprune.errors import UnsupportedModel
from fitprune.interface.attention import Attention, attention_ahead
from fitprune.models.images import pixel_bytes

if TYPE_CHECKING:
    from fitprune.interface.vision import Vision
    from fitprune.models.parts import Anatomy

__all__ = ["Attention", "VisualTokens"]


@dataclass
class VisualTokens:
    """The visual tokens present at one point of a prefill. n is the largest count in the batch; rows are padded.

    The newline tokens of tiled models are not among them, unless the pruner says so: see `Pruner.newlines`.

    Attributes:
        hidden: (batch, T, hidden_size) hidden states at this point, T counting all tokens present.
        position: LongTensor (batch, n): row of each visual token in `hidden`, ascending, padded with -1 on the right.
        original: LongTensor (batch, n): its index among the prompt's visual tokens, padded with -1.
        total: (batch,) visual tokens in the prompt.
        valid: (batch, T) bool, False for padding; None where all tokens are real.
        text_after: (batch, T) bool: real text tokens after the sample's last image; newline tokens are no text.
        first_row: no visual token stands before this row, in any sample.
        memory: a place for what a pruner wants to remember from one layer to the next, fresh in every prefill.
        prompt: the arguments of the model's forward, as given; beside them `images`, the batch's `Images` or None, and
            `image_tokens`, (batch,) the places that images take in each prompt, newline tokens included.
        parts: of the model.
        layer: the decoder layer that runs next, or is running.
        embeddings: cosine and sine of the rotary embedding of all tokens present, (1 or batch, T, d).
        seen: what the vision tower made of the images; None unless the method says `vision = True`.
        macs: multiply-accumulates spent on scoring so far.
    """

    hidden: torch.Tensor
    position: torch.Tensor
    original: torch.Tensor
    total: torch.Tensor
    valid: torch.Tensor | None
    text_after: torch.Tensor
    first_row: int
    memory: dict[str, Any] = field(default_factory=dict)
    prompt: dict[str, Any] = field(default_factory=dict)
    parts: "Anatomy | None" = None
    layer: Any = None
    embeddings: tuple[torch.Tensor, torch.Tensor] | None = None
    seen: "Vision | None" = None
    macs: int = 0

    @property
    def vision(self) -> "Vision":
        """What the vision tower made of the images, for a method with `vision = True`.

        Raises:
            UnsupportedModel: the images were encoded where the method could not see it.
        """
        if self.seen is None:
            raise UnsupportedModel(
                "this method looks at the vision tower, which did not run inside its context; "
                "call the model with pixel_values, inside it."
            )
        return self.seen

    @property
    def present(self) -> torch.Tensor:
        """(batch, n) bool: which places hold a token."""
        return self.position >= 0

    @property
    def count(self) -> torch.Tensor:
        """(batch,) visual tokens present."""
        return self.present.sum(1)

    def columns(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, T) the values at the visual tokens: (batch, n), 0 in padding places."""
        return values.gather(1, self.position.clamp(min=0)).masked_fill(~self.present, 0)

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, T, d) the rows of the visual tokens: (batch, n, d), 0 in padding places."""
        return take(values, self.position.clamp(min=0)).masked_fill(~self.present[..., None], 0)

    @property
    def features(self) -> torch.Tensor:
        """(batch, n, hidden_size): their hidden states; before the first layer, the projected image features."""
        return self.rows(self.hidden)

    def spend(self, macs: int) -> None:
        """Note multiply-accumulates that scoring took, for the whole batch, padding left out."""
        self.macs += int(macs)

    def last_row(self) -> torch.Tensor:
        """LongTensor (batch,): the row of each sample's last real token."""
        batch, length = self.hidden.shape[:2]
        if self.valid is None:
            return torch.full((batch,), length - 1, device=self.hidden.device)
        return length - 1 - self.valid.flip(1).long().argmax(1)

    def upcoming(self) -> Attention:
        """The attention of the layer that runs next, ahead of it: the query of each sample's last token and all keys, at the
        current position ids. Its projections are counted as scoring.
        """
        assert self.embeddings is not None
        attention, width = self.layer.self_attn, self.hidden.shape[-1]
        real = len(self.hidden) * self.hidden.shape[1] if self.valid is None else int(self.valid.sum())
        ahead = attention_ahead(self.layer, self.hidden, self.last_row(), self.embeddings)
        keys, queries = (projection.weight.shape[0] for projection in (attention.k_proj, attention.q_proj))
        self.spend(width * (real * keys + len(self.hidden) * queries))
        return ahead

    def row_mask(self) -> torch.Tensor:
        """(batch, T) bool: which rows hold visual tokens."""
        rows = torch.zeros(self.hidden.shape[:2], dtype=torch.bool, device=self.hidden.device)
        # Padding places fall on column 0 of an extra column that is cut off again.
        rows = torch.cat([rows.new_zeros(len(rows), 1), rows], 1)
        return rows.scatter(1, self.position + 1, True)[:, 1:]

    def keep_highest(self, score: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Keep in each sample its `keep` tokens of highest score; of equals, the later ones.

        Args:
            score: (batch, n), finite.
            keep: LongTensor (batch,), clamped to what is there.

        Returns:
            (batch, n) bool, False in padding places.
        """
        order = score.masked_fill(~self.present, float("inf")).argsort(dim=1, stable=True)
        rank = torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
        drop = (self.count - keep).clamp(min=0)
        return (rank >= drop[:, None]) & self.present

    def sample_seeds(self, seed: int) -> list[int]:
        """One seed per sample, from `seed`, the sample's own token ids and its images: the same in every batch.

        Where a model's images cannot be told apart (tiles of several sizes in one unmarked row), from the ids alone.
        """
        ids, mask, images = self.prompt.get("input_ids"), self.prompt.get("attention_mask"), self.prompt.get("images")
        if ids is None:
            ids = self.prompt["inputs_embeds"].float()
        own = images.of_samples(self.prompt["image_tokens"].tolist()) if images is not None else None
        seeds = []
        for row in range(len(self.total)):
            digest = hashlib.blake2b(str(seed).encode(), digest_size=8)
            real = ids[row] if mask is None else ids[row][mask[row].bool()]
            digest.update(real.detach().cpu().contiguous().numpy().tobytes())
            for pixels in own[row] if own is not None else ():
                digest.update(pixel_bytes(pixels))
            # torch's CPU generator takes seeds of up to 63 bits.
            seeds.append(int.from_bytes(digest.digest(), "little") >> 1)
        return seeds
