"""`PrunedCache`: a KV cache that carries what a pruner left in its layers through all that is done to a cache.

After pruning, layers hold different numbers of tokens, and a token's position no longer follows from a length. What does is
kept on the cache object itself (`CacheState`), so that it is cropped, reordered, selected, repeated and copied with the tokens.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from fitprune.errors import UnsupportedModel

Change = Callable[[torch.Tensor], torch.Tensor]

# Columns that a layer's mask of padding grows by when it is full.
ROOM = 64


@dataclass(frozen=True)
class HeldRows:
    """What one layer of a KV cache holds of a prompt.

    Attributes:
        rows: their number, padding counted.
        valid: bool (batch, at least `rows`), False for padding; None where all rows are real. Columns beyond `rows`, all
            True, stand ready for rows that come later.
        removed: (batch,): by how much the layer's position ids are smaller than those that the decoder was called with; None
            where they are the same.
        bias: float (batch, at least `rows`), added to the logits of attention at these rows as keys, the least number at
            padding; None for nothing. Columns beyond `rows`, all 0, stand ready for rows that come later.
    """

    rows: int
    valid: torch.Tensor | None = None
    removed: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def rearrange(self, change: Change) -> "HeldRows":
        """With `change` done to the samples of the batch."""
        parts = (self.valid, self.removed, self.bias)
        valid, removed, bias = (None if part is None else change(part) for part in parts)
        return replace(self, valid=valid, removed=removed, bias=bias)

    def crop(self, count: int) -> "HeldRows":
        """Without the last `count` rows."""
        rows = self.rows - count
        valid, bias = (None if part is None else part[:, :rows] for part in (self.valid, self.bias))
        return replace(self, rows=rows, valid=valid, bias=bias)


class CacheState:
    """What the engine knows of one KV cache."""

    def __init__(self, prompt: HeldRows, text_from: int | None = None) -> None:
        """The state of a cache that a prefill is about to fill.

        Args:
            prompt: the whole prompt, before anything leaves.
            text_from: the first row of the prompt from which on no sample has a visual token; None for a prompt
                without visual tokens.
        """
        self.prompt, self.text_from = prompt, text_from
        # Per layer. Layers that hold the same share one object.
        self.layers: list[HeldRows] = []
        # Tokens of the unpruned sequence so far, padding counted.
        self.seen = prompt.rows
        # bool (batch, tokens after the prompt), False for padding; None where all of them are real.
        self.later: torch.Tensor | None = None
        # Whether a forward that knows of the pruning is under way.
        self.served = False
        self._offsets: torch.Tensor | None = None

    @property
    def pruned(self) -> bool:
        """Whether the prompt had visual tokens."""
        return self.text_from is not None

    def check(self, cache: Cache, layers: int) -> None:
        """Raise UnsupportedModel if one of a cache's `layers` does not hold what it held after the last forward."""
        expected: list[int] = [held.rows + self.seen - self.prompt.rows for held in self.layers]
        found = [int(cache.get_seq_length(index)) for index in range(layers)]
        if found != expected:
            raise UnsupportedModel(
                f"this KV cache holds {_short(found)} tokens by layer where the pruner left {_short(expected)}: a forward was "
                "interrupted, or layers were changed one by one. Start from a new cache."
            )

    def extend(self, mask: torch.Tensor | None, length: int) -> None:
        """Note that `length` more tokens come in.

        Args:
            mask: (batch, `seen` + length), 0 for padding, as the model was called with; None where all new tokens are real.

        Raises:
            UnsupportedModel: the mask does not fit the tokens so far.
        """
        if mask is not None:
            self.later = self._later(mask.bool(), self.seen + length)
        elif self.later is not None:
            self.later = nn.functional.pad(self.later, (0, length), value=True)
        self.seen += length

    def _later(self, mask: torch.Tensor, total: int) -> torch.Tensor | None:
        if mask.shape[1] != total:
            raise UnsupportedModel(
                f"the attention mask has {mask.shape[1]} columns; after pruning it needs one for each of the {total} tokens of "
                "the unpruned sequence, those in the KV cache and the new ones."
            )
        valid = self.prompt.valid
        prompt, later = mask[:, : self.prompt.rows], mask[:, self.prompt.rows :]
        same = prompt.all() if valid is None else (prompt == valid[:, : self.prompt.rows]).all()
        # One read from the device for both.
        same_prompt, real = torch.stack([same, later.all()]).tolist()
        if not same_prompt:
            raise UnsupportedModel(
                "the attention mask hides other tokens of the prompt than when it was pruned; give the mask of then, with a "
                "column more for each token since."
            )
        return None if real else later

    def valid(self, layer: int) -> torch.Tensor | None:
        """bool (batch, rows): which rows of a layer are no padding, those of `extend` included; None where all are real.

        `layers` may hold another object for that layer afterwards, which has room for what comes later.
        """
        held = self.layers[layer]
        if self.later is not None:
            if held.valid is not None:
                return torch.cat([held.valid[:, : held.rows], self.later.to(held.valid.device)], 1)
            return nn.functional.pad(self.later, (held.rows, 0), value=True)
        return self._with_room(held, "valid", True)

    def bias(self, layer: int) -> torch.Tensor | None:
        """float (batch, rows): `HeldRows.bias` of a layer, those of `extend` included; as `valid`, otherwise."""
        return self._with_room(self.layers[layer], "bias", 0)

    def _with_room(self, held: HeldRows, name: str, new: float) -> torch.Tensor | None:
        part = getattr(held, name)
        if part is None:
            return None
        rows = held.rows + self.seen - self.prompt.rows
        if part.shape[1] < rows:
            part = nn.functional.pad(part, (0, rows + ROOM - part.shape[1]), value=new)
            wide = replace(held, **cast(Any, {name: part}))
            self.layers = [wide if each is held else each for each in self.layers]
        return part[:, :rows]

    def stages(self) -> tuple[list[int], torch.Tensor | None]:
        """Layers of one stage have the same position ids.

        Returns:
            The stage of each layer, numbered from 0; and (batch, stages), by how much its position ids are smaller than those
            that the decoder was called with, or None where all are the same.
        """
        removed = list({id(held.removed): held.removed for held in self.layers}.values())
        number = {id(one): stage for stage, one in enumerate(removed)}
        if self._offsets is None and (known := [one for one in removed if one is not None]):
            home = known[0]
            same = torch.zeros_like(home)
            self._offsets = torch.stack([same if one is None else one.to(home.device) for one in removed], 1)
        return [number[id(held.removed)] for held in self.layers], self._offsets

    def rearrange(self, change: Change) -> None:
        """Note that `change` was done to the samples of the batch."""
        self._replace(lambda held: held.rearrange(change))
        self.later = None if self.later is None else change(self.later)

    def crop(self, count: int) -> None:
        """Note that the last `count` tokens leave.

        Raises:
            UnsupportedModel: visual tokens are among them, and layers hold different ones of these.
        """
        into_prompt = count - (self.seen - self.prompt.rows)
        if into_prompt > 0:
            assert self.text_from is not None
            text = self.prompt.rows - self.text_from
            if into_prompt > text:
                raise UnsupportedModel(
                    f"cropping {count} of {self.seen} tokens reaches into the pruned image of this KV cache; at most "
                    f"{count - into_prompt + text} can be cropped. Start from a new cache."
                )
            self._replace(lambda held: held.crop(into_prompt))
        self.seen -= count
        self.later = None if self.later is None or into_prompt >= 0 else self.later[:, :-count]

    def _replace(self, change: Callable[[HeldRows], HeldRows]) -> None:
        changed = {id(held): change(held) for held in {id(held): held for held in self.layers}.values()}
        self.layers = [changed[id(held)] for held in self.layers]
        self.prompt, self._offsets = change(self.prompt), None


class PrunedCache(Cache):
    """What a cache becomes once a pruned prompt is in it: of a class made of this one and its own.

    `get_seq_length()` counts the tokens of the unpruned sequence, from which `generate` and models derive positions and what
    is new in a conversation; `get_seq_length(layer)` counts what a layer holds.
    """

    plain: ClassVar[type[Cache]]
    fitprune_state: CacheState

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        """Tokens of the unpruned sequence; with a layer, the tokens that it holds."""
        return self.fitprune_state.seen if layer_idx is None else super().get_seq_length(layer_idx)

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to a layer, inside a pruner's context."""
        if not self.fitprune_state.served:
            raise UnsupportedModel(
                "this KV cache holds a pruned prompt, and no pruner's context is open: masks and positions would be wrong. Go "
                "on inside the context."
            )
        return super().update(*args, **kwargs)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens, given as a negative number; those of the prompt up to its last visual token."""
        if tokens_to_remove > 0:
            # A positive number is the length to keep in old releases; in others an empty layer refuses it.
            DynamicLayer().crop(tokens_to_remove)
            tokens_to_remove = min(tokens_to_remove - self.fitprune_state.seen, 0)
        if tokens_to_remove:
            self.fitprune_state.crop(-tokens_to_remove)
            super().crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Put the samples of the batch in another order."""
        super().reorder_cache(beam_idx)
        self.fitprune_state.rearrange(lambda part: part.index_select(0, beam_idx.to(part.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these samples of the batch."""
        super().batch_select_indices(indices)
        self.fitprune_state.rearrange(lambda part: part[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sample of the batch."""
        super().batch_repeat_interleave(repeats)
        self.fitprune_state.rearrange(lambda part: part.repeat_interleave(repeats, 0))

    def reset(self) -> None:
        """Empty the cache; it is of its own class again."""
        super().reset()
        del self.fitprune_state
        self.__class__ = self.plain  # type: ignore[assignment]

    def __iter__(self) -> Any:
        raise UnsupportedModel(
            "a KV cache with a pruned prompt does not come apart into tuples of keys and values: a cache made of them would "
            "not know which tokens its layers lack. Look at its .layers, or use copy.deepcopy."
        )

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _empty, (self.plain,), vars(self)


@functools.cache
def _pruned(plain: Any) -> type[PrunedCache]:
    """The class of caches of class `plain` with a pruned prompt."""
    return type(f"Pruned{plain.__name__}", (PrunedCache, plain), {"plain": plain})


def _empty(plain: Any) -> PrunedCache:
    """A cache without attributes, to be filled by `copy` or `pickle`."""
    pruned = _pruned(plain)
    return pruned.__new__(pruned)


def attach(cache: Cache, state: CacheState) -> None:
    """Let `cache` carry `state` from here on."""
    cache.fitprune_state = state  # type: ignore[attr-defined]
    plain: Any = type(cache)
    if state.pruned and not issubclass(plain, PrunedCache):
        cache.__class__ = _pruned(plain)


def state_of(cache: Any) -> CacheState | None:
    """What `cache` carries; None where no pruner's context has filled it."""
    return getattr(cache, "fitprune_state", None)


def _short(numbers: list[int]) -> str:
    """A list for a message, without its middle."""
    return ", ".join(map(str, numbers if len(numbers) < 7 else [*numbers[:3], "…", *numbers[-2:]]))
