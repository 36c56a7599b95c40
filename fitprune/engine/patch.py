"""`pruning`: a live transformers model is pruned inside a context, without forking its code.

While at least one pruner is active on a model, each of its decoder layers has a stand-in for its forward, and each attention
module a configuration that routes through `observed_attention`. That hands queries and keys to the pruner and then calls the
attention that the model was set to (SDPA, flash, eager). A stand-in with no session to serve calls the layer as it was. When
the last pruner leaves, all of it is gone.

Pruning shortens the sequence in mid-decoder. From there on each layer is given the rotary embeddings of the survivors, and a
mask that transformers' own functions build for what is left. In decoding, and in later turns of a conversation, each layer's
mask and positions are built from what its cache holds, which the cache itself carries (`fitprune.models.kv_cache`).
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import torch
from torch import nn

from fitprune.engine.decoder_hooks import DecoderHooks
from fitprune.engine.generate_hooks import GenerateHooks
from fitprune.engine.serving import OpenSessions
from fitprune.engine.session import Session
from fitprune.engine.tower import TowerRun
from fitprune.engine.tower_hooks import TowerHooks
from fitprune.errors import UnsupportedModel
from fitprune.interface.hooks import Hooks
from fitprune.interface.trace import Trace
from fitprune.models.parts import ModelParts, model_parts, require_whole
from fitprune.models.releases import require_known_release
from fitprune.models.tower import tower_parts


@contextmanager
def pruning(
    model: nn.Module, pruner: Hooks, visual_mask: torch.Tensor | None = None, record_all: bool = False
) -> Iterator[Trace]:
    """Apply `pruner` to `model` inside the context; see `Pruner.__call__`."""
    with ExitStack() as undo:
        patch = _Patch.acquire(model)
        undo.callback(patch.release)
        session = Session(patch.parts, pruner, visual_mask, record_all)
        undo.callback(session.forget)
        undo.callback(patch.sessions.close, session)
        patch.open(session)
        yield session.context.trace


def announce(model: nn.Module, visual_mask: torch.Tensor, newline_mask: torch.Tensor) -> None:
    """Tell the pruner that serves this call where the visual tokens are, before its decoder is called with embeddings.

    For one forward. Both are bool (batch, T); newline tokens are in both. Ordinary callers call the whole model instead.
    """
    patch = _Patch.active(model)
    session = patch.sessions.serving() if patch is not None else None
    if session is None:
        raise UnsupportedModel("no pruner is active on this model.")
    session.note(prompt={"visual_mask": visual_mask, "newline_mask": newline_mask})


def tower_run(model: nn.Module) -> TowerRun | None:
    """The pass through the vision tower that is under way here, for a pruner that looks into it."""
    patch = _Patch.active(model)
    session = patch.sessions.serving() if patch is not None else None
    return session.tower_run() if session is not None else None


class _Patch:
    """All hooks on one model, shared by the sessions on it."""

    _lock = threading.RLock()
    _by_decoder: ClassVar[dict[int, "_Patch"]] = {}

    def __init__(self, parts: ModelParts) -> None:
        self.parts = parts
        self.users = 0
        self.sessions = OpenSessions()
        self.in_tower = False
        self.undo = ExitStack()

    @classmethod
    def acquire(cls, model: nn.Module) -> "_Patch":
        """The patch on `model`, installed if it is the first."""
        parts = model_parts(model)
        require_known_release(parts.layers)
        require_whole(model)
        with cls._lock:
            patch = cls._by_decoder.get(id(parts.decoder))
            if patch is None:
                patch = cls(parts)
                with ExitStack() as failed:
                    failed.callback(patch.undo.close)
                    patch._install(GenerateHooks(model, parts, patch.sessions.serving))
                    patch._install(DecoderHooks(parts, patch.sessions.serving))
                    failed.pop_all()
                cls._by_decoder[id(parts.decoder)] = patch
            patch.users += 1
            return patch

    @classmethod
    def active(cls, model: nn.Module) -> "_Patch | None":
        """The patch on `model`, if a pruner is active on it."""
        with cls._lock:
            return cls._by_decoder.get(id(model_parts(model).decoder))

    def open(self, session: Session) -> None:
        """Let `session` serve calls, with hooks in the tower where its pruner looks into that."""
        self.sessions.open(session)
        with self._lock:
            if session.context.pruner.looks_into_tower and not self.in_tower:
                tower = tower_parts(self.parts)
                if tower is not None:
                    self.in_tower = True
                    self._install(TowerHooks(self.parts, tower, self.sessions.serving))

    def release(self) -> None:
        """Give the patch back; the last user removes it."""
        with self._lock:
            self.users -= 1
            if self.users == 0:
                del self._by_decoder[id(self.parts.decoder)]
                self.undo.close()

    def _install(self, hooks: GenerateHooks | DecoderHooks | TowerHooks) -> None:
        self.undo.callback(hooks.remove)
        hooks.install()
