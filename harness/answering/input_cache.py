"""The model's inputs for a suite, kept in memory: cells that ask the same questions decode, process and tokenise them once."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Inputs = dict[str, torch.Tensor]

BYTES = 1 << 29  # per process: the six mini suites at 400 questions each fit


class SuiteInputs:
    """A suite's batches, by the places of their questions.

    Attributes:
        order: which questions form which batch, once that is known.
    """

    def __init__(self, cache: "InputCache") -> None:
        self.order: list[tuple[int, ...]] | None = None
        self._cache = cache
        self._batches: dict[tuple[int, ...], tuple[Inputs, list[str]]] = {}
        self.bytes = 0

    def get(self, places: tuple[int, ...], device: str) -> "tuple[Inputs, list[str]] | None":
        """A batch's inputs, on the device, and its image hashes; None if they are not kept."""
        kept = self._batches.get(places)
        return None if kept is None else ({name: value.to(device) for name, value in kept[0].items()}, kept[1])

    def put(self, places: tuple[int, ...], inputs: "Inputs", images: list[str]) -> None:
        """Keep a batch, unless there is no room for it."""
        kept = {name: value.cpu() for name, value in inputs.items()}
        size = sum(value.nbytes for value in kept.values())
        if self._cache.make_room(size, self):
            self._batches[places] = kept, images
            self.bytes += size

    def holds(self, batches: Sequence[tuple[int, ...]]) -> bool:
        """Whether all of these batches are kept."""
        return all(places in self._batches for places in batches)


class InputCache:
    """Suites' inputs up to `limit` bytes together. A suite that does not fit is kept as far as it does."""

    def __init__(self, limit: int = BYTES) -> None:
        self.limit = limit
        self._suites: dict[Hashable, SuiteInputs] = {}

    def of(self, *key: Hashable) -> SuiteInputs:
        """The inputs of the suite that `key` names; it counts as the one used last."""
        suite = self._suites.pop(key, None) or SuiteInputs(self)
        self._suites[key] = suite
        return suite

    def make_room(self, size: int, asking: SuiteInputs) -> bool:
        """Whether `size` more bytes fit. The suites unused for longest go for it, never the asking one's own batches:
        those are read from first to last, so that dropping the oldest would mean never to find one.
        """
        while sum(suite.bytes for suite in self._suites.values()) + size > self.limit:
            oldest = next((key for key, suite in self._suites.items() if suite is not asking), None)
            if oldest is None:
                return False
            del self._suites[oldest]
        return True
