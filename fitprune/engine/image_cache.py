"""`remembering_images`: images are encoded once for several passes over the same inputs, such as a sweep of pruners."""

import copy
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitprune.engine.patch import tower_run
from fitprune.engine.undo import Attachments
from fitprune.interface.tower import TowerRecord
from fitprune.models.parts import model_parts


@dataclass
class _Entry:
    """One batch of images: the arguments it came with, the model's output for it, and what was seen of the tower."""

    arguments: dict[str, Any]
    version: int | None
    output: Any
    record: TowerRecord | None
    size: int


Kept = OrderedDict[int, _Entry]


@contextmanager
def remembering_images(model: nn.Module, limit: int = 2**30, kept: Kept | None = None) -> Iterator[None]:
    """Inside, `model` encodes the images of one and the same `pixel_values` tensor once; answers do not change.

    Enter it before any pruner. A pruner that changes what runs in the vision tower has its images encoded each time.

    Args:
        limit: bytes of images and their features that are kept; the oldest go first.
        kept: where they are kept, empty at first. A later context of the same model that is given the same dictionary knows
            these images; by default all are forgotten on exit.
    """
    parent = model_parts(model).parent
    features = parent.get_image_features
    memory = _Memory(features, limit, model, OrderedDict() if kept is None else kept)

    @functools.wraps(features)
    def remembered(*args: Any, **kwargs: Any) -> Any:
        return memory.encode(*args, **kwargs)

    with ExitStack() as undo:
        attached = Attachments()
        undo.callback(attached.remove)
        attached.set(parent, "get_image_features", remembered)
        yield


class _Memory:
    """What a model's `get_image_features` gave."""

    def __init__(self, features: Callable[..., Any], limit: int, model: nn.Module, kept: Kept) -> None:
        self.features, self.limit, self.model = features, limit, model
        self.signature = inspect.signature(features)
        self.entries = kept

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        arguments = dict(self.signature.bind(*args, **kwargs).arguments)
        run, pixels = tower_run(self.model), arguments.get("pixel_values")
        if not isinstance(pixels, torch.Tensor) or (run is not None and run.pruner.changes_tower):
            return self.features(*args, **kwargs)
        version = None if pixels.is_inference() else pixels._version
        known = self.entries.get(id(pixels))
        same = known is not None and known.version == version and _same(known.arguments, arguments)
        if known is not None and same and (run is None or run.restore(known.record)):
            self.entries.move_to_end(id(pixels))
            return copy.copy(known.output)
        output = self.features(*args, **kwargs)
        record = run.record() if run is not None else None
        if known is not None and same and record is not None and known.record is not None:
            record = record.joined(known.record)
        self._keep(_Entry(arguments, version, output, record, _bytes(arguments) + _bytes(output) + _bytes(record)), pixels)
        # `generate` repeats the images of its output in place, for beams.
        return copy.copy(output)

    def _keep(self, entry: _Entry, pixels: torch.Tensor) -> None:
        # The entry holds the tensor, so that no other can come to have its id.
        self.entries[id(pixels)] = entry
        self.entries.move_to_end(id(pixels))
        while len(self.entries) > 1 and sum(entry.size for entry in self.entries.values()) > self.limit:
            self.entries.popitem(last=False)


def _same(known: Any, given: Any) -> bool:
    if isinstance(known, torch.Tensor) or isinstance(given, torch.Tensor):
        return known is given or (
            isinstance(known, torch.Tensor)
            and isinstance(given, torch.Tensor)
            and known.shape == given.shape
            and not known.is_floating_point()
            and torch.equal(known, given)
        )
    if isinstance(known, dict) and isinstance(given, dict):
        return known.keys() == given.keys() and all(_same(known[name], given[name]) for name in known)
    return known == given


def _bytes(value: Any) -> int:
    """Bytes of the tensors in it."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return _bytes(vars(value)) if isinstance(value, TowerRecord) else 0
