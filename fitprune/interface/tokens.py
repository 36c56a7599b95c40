"""`VisualTokens`: the visual tokens present at one point of a prefill, as a pruner sees them."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fitprune.errors import UnsupportedModel
from fitprune.interface.attention import Attention
from fitprune.interface.layout import Layout
from fitprune.interface.lookahead import attention_ahead
from fitprune.interface.tower import TowerRecord
from fitprune.interface.videos import Videos, videos_of
from fitprune.interface.vision import Vision
from fitprune.models.execution import model_precision
from fitprune.models.images import Images, pixel_bytes
from fitprune.models.parts import ModelParts
from fitprune.models.reader import embeddings_of, questions_of
from fitprune.scoring.macs import Macs, counted

__all__ = ["Attention", "LayerContext", "VisualTokens"]


@dataclass(frozen=True)
class LayerContext:
    """What stands around the visual tokens at one decoder layer.

    Attributes:
        parts: of the model.
        layer: the decoder layer that runs next, or is running.
        prompt: the arguments of the model's forward, as given. One is added, `seen`: under "image" and "video", as far as they
            are known, the batch's `Images` and their positions in the prompts, bool (batch, T), newline tokens included.
        embeddings: cosine and sine of the rotary embedding of all tokens present, (1 or batch, T, d).
        tower: what was seen of the vision tower; None unless the method says `vision = True`.
        global_index: LongTensor (batch, m), of all m visual tokens of the prompt: the global patch index
            `view * patches + patch`, -1 for padding and newlines.
        visual_tokens: (batch,) visual tokens of the whole prompt. `VisualTokens.total` is smaller where pruners that worked
            before this one have dropped some before the decoder.
    """

    parts: ModelParts | None = None
    layer: Any = None
    prompt: dict[str, Any] = field(default_factory=dict)
    embeddings: tuple[torch.Tensor, torch.Tensor] | None = None
    tower: TowerRecord | None = None
    global_index: torch.Tensor | None = None
    visual_tokens: torch.Tensor | None = None


@dataclass
class VisualTokens:
    """The visual tokens present at one point of a prefill. n is the largest count in the batch; rows are padded.

    Newline tokens are among them where the pruner says so (`Pruner.newlines`). `layout` and `context` can be read here, too.

    Attributes:
        hidden: (batch, T, hidden_size) hidden states at this point, T counting all tokens present.
        layout: where the visual tokens stand.
        memory: a place for what a pruner wants to remember from one layer to the next, fresh in every prefill. Tensors in it,
            in lists, tuples and dictionaries too, are on the device of the layer at hand.
        carried: the same for one number per row, (batch, T): each stays with its row where tokens leave in between.
        context: the layer, the model and the prompt around them.
        spent: multiply-accumulates of scoring so far.
    """

    hidden: torch.Tensor
    layout: Layout
    memory: dict[str, Any] = field(default_factory=dict)
    context: LayerContext = field(default_factory=LayerContext)
    spent: list[Macs] = field(default_factory=list)
    carried: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def position(self) -> torch.Tensor:
        """LongTensor (batch, n): row of each visual token in `hidden`, ascending, padded with -1 on the right."""
        return self.layout.position

    @property
    def original(self) -> torch.Tensor:
        """LongTensor (batch, n): its index among the prompt's visual tokens, padded with -1."""
        return self.layout.original

    @property
    def total(self) -> torch.Tensor:
        """(batch,) visual tokens in the prompt; to a later pruner of a `Composed`, those left before the decoder."""
        return self.layout.total

    @property
    def valid(self) -> torch.Tensor | None:
        """(batch, T) bool, False for padding; None where all tokens are real."""
        return self.layout.valid

    @property
    def text_after(self) -> torch.Tensor:
        """(batch, T) bool: real text tokens after the sample's last image; newline tokens are no text."""
        return self.layout.text_after

    @property
    def roles(self) -> torch.Tensor:
        """(batch, 2, T) bool: `text_after` and `row_mask()`."""
        return self.layout.roles

    @property
    def lacks_text(self) -> bool:
        """Whether a sample may have visual tokens, and no text after its last image."""
        return self.layout.lacks_text

    @property
    def first_row(self) -> int:
        """No visual token stands before this row, in any sample."""
        return self.layout.first_row

    @property
    def present(self) -> torch.Tensor:
        """(batch, n) bool: which columns hold a token."""
        return self.layout.present

    @property
    def count(self) -> torch.Tensor:
        """(batch,) visual tokens present."""
        return self.layout.count

    @property
    def parts(self) -> ModelParts | None:
        """The parts of the model."""
        return self.context.parts

    @property
    def layer(self) -> Any:
        """The decoder layer that runs next, or is running."""
        return self.context.layer

    @property
    def prompt(self) -> dict[str, Any]:
        """The arguments of the model's forward; see `LayerContext.prompt`."""
        return self.context.prompt

    @property
    def embeddings(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Cosine and sine of the rotary embedding of all tokens present, (1 or batch, T, d)."""
        return self.context.embeddings

    @functools.cached_property
    def vision(self) -> Vision:
        """What the vision tower made of the images, for a method with `vision = True`.

        Raises:
            UnsupportedModel: the images were encoded where the method could not see it.
        """
        record, index = self.context.tower, self.context.global_index
        if record is None or index is None:
            raise UnsupportedModel(
                "this method looks at the vision tower, which did not run inside its context; "
                "call the model with pixel_values, inside it."
            )
        own = index.gather(1, self.original.clamp(min=0)).masked_fill(self.original < 0, -1)
        return Vision(record, own, self.spend)

    @functools.cached_property
    def videos(self) -> list[Videos]:
        """Which tokens are of which frame of the prompts' videos; see `videos_of`, also for what it raises."""
        return videos_of(self.layout, self._seen.get("video"), self.context.visual_tokens)

    @functools.cached_property
    def question(self) -> list[str]:
        """The question of each sample, read back from its token ids, without the chat template around it; waits for the device.

        Raises:
            UnsupportedModel: the prompt was given as embeddings.
        """
        return questions_of(self.parts, self.prompt)

    def word_embeddings(self, words_of: Callable[[str], Sequence[str]]) -> list[torch.Tensor]:
        """For each sample, the decoder's input embeddings (m, hidden_size) of words that `words_of` takes of its question."""
        return embeddings_of(self.parts, [words_of(question) for question in self.question])

    @property
    def features(self) -> torch.Tensor:
        """(batch, n, hidden_size): their hidden states; before the first layer, the projected image features."""
        return self.rows(self.hidden)

    def columns(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, T) the values at the visual tokens: (batch, n), 0 in padding columns."""
        return self.layout.columns(values)

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, T, d) the rows of the visual tokens: (batch, n, d), 0 in padding columns."""
        return self.layout.rows(values)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `columns`: values (batch, n) of the visual tokens in their rows, (batch, T), 0 in all others."""
        return self.layout.spread(values)

    def row_mask(self) -> torch.Tensor:
        """(batch, T) bool: which rows hold visual tokens."""
        return self.layout.row_mask()

    def last_row(self) -> torch.Tensor:
        """LongTensor (batch,): the row of each sample's last real token."""
        return self.layout.last_row()

    def keep_highest(self, score: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Keep in each sample its `keep` tokens of highest score; of equals, the later ones.

        Args:
            score: (batch, n), finite.
            keep: LongTensor (batch,), clamped to the tokens present.

        Returns:
            (batch, n) bool, False in padding columns.
        """
        return self.layout.keep_highest(score, keep)

    def spend(self, *macs: Macs) -> None:
        """Note multiply-accumulates that scoring took, for the whole batch, padding left out.

        They are added up when the trace is read. So a count on the device is given as it is, a tensor of no dimensions.
        """
        self.spent += macs

    @property
    def macs(self) -> int:
        """Multiply-accumulates spent on scoring so far; waits for the device."""
        return sum(map(counted, self.spent))

    def upcoming(self) -> Attention:
        """The attention of the layer that runs next, ahead of it: the query of each sample's last token and all keys, at the
        current position ids. Its projections are counted as scoring.
        """
        assert self.embeddings is not None
        batch, length, width = self.hidden.shape
        real = batch * length if self.valid is None else self.valid.sum()
        with model_precision(self.hidden):
            ahead = attention_ahead(self.layer, self.hidden, self.last_row(), self.embeddings)
        # Sizes of what came out, not of the weights: quantised ones are packed.
        keys, queries = (states.shape[1] * states.shape[3] for states in (ahead.key, ahead.query))
        self.spend(width * (real * keys + batch * queries))
        return ahead

    @property
    def _seen(self) -> dict[str, tuple[Images, torch.Tensor]]:
        return self.prompt.get("seen", {})

    def sample_seeds(self, seed: int) -> list[int]:
        """One seed per sample, from `seed`, the sample's own token ids and its images: the same in every batch.

        It is another one where earlier pruners have dropped tokens: two draws of one seed do not depend on each other.
        Where a prompt's images are not known (tiles of several sizes in one unmarked row, or embeddings and features of other
        images than were encoded last), from the ids alone.
        """
        ids, mask = self.prompt.get("input_ids"), self.prompt.get("attention_mask")
        if ids is None:
            ids = self.prompt["inputs_embeds"].float()
        seen = [(images.on_host(), images.of_samples(own.sum(1).tolist())) for images, own in self._seen.values()]
        left = self.layout.totals
        whole = left if self.context.visual_tokens is None else self.context.visual_tokens.tolist()
        ids, mask = ids.detach().cpu(), None if mask is None else mask.bool().cpu()
        seeds = []
        for row in range(len(left)):
            digest = hashlib.blake2b(str(seed).encode(), digest_size=8)
            real = ids[row] if mask is None else ids[row][mask[row]]
            digest.update(real.contiguous().numpy().tobytes())
            if left[row] != whole[row]:
                digest.update(f"of {left[row]}".encode())
            for pixels, own in seen:
                for image in own[row] if own is not None else ():
                    digest.update(pixel_bytes(pixels[image]))
            # torch's CPU generator takes seeds of up to 63 bits.
            seeds.append(int.from_bytes(digest.digest(), "little") >> 1)
        return seeds
