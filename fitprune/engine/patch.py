"""How a live transformers model is pruned without forking its code.

While at least one pruner is active on a model, each of its decoder layers carries a dispatcher in place of its forward, and
each attention module a configuration that routes through `observed_attention`, which hands queries and keys to the
pruner and then calls the attention that the model was set to (SDPA, flash, eager). A dispatcher with no session to serve
calls the layer as it was. When the last pruner leaves, all of it is gone.

Pruning shortens the sequence in mid-decoder, so from there on each layer is given the rotary embeddings of the survivors
and a mask built anew, by transformers' own mask functions, for what is left. In decoding each layer's mask is built from
what that layer's cache holds.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from fitprune.engine.layer import Layer
from fitprune.engine.session import Session
from fitprune.engine.tap import gather_survivors, observing_config
from fitprune.engine.tower import Tower, TowerRun
from fitprune.engine.undo import set_attribute
from fitprune.errors import UnsupportedModel
from fitprune.interface.trace import Trace
from fitprune.models.images import Images
from fitprune.models.parts import Anatomy, anatomy
from fitprune.models.releases import require_known_release

if TYPE_CHECKING:
    from fitprune.pruner import Pruner


@contextmanager
def pruning(model: nn.Module, pruner: "Pruner") -> Iterator[Trace]:
    """Apply `pruner` to `model` inside the context; see `Pruner.__call__`."""
    patch = _Patch.acquire(model)
    session = None
    try:
        session = Session(patch.parts, pruner)
        patch.open(session)
        yield session.trace
    finally:
        patch.close(session)
        patch.release()


def announce(model: nn.Module, visual_mask: torch.Tensor) -> None:
    """Tell the pruner active in this thread where the visual tokens are, before its decoder is called with embeddings.

    For one forward. `visual_mask` is bool (batch, sequence). Ordinary callers call the whole model instead.
    """
    patch = _Patch.active(model)
    session = patch.session() if patch is not None else None
    if session is None:
        raise UnsupportedModel("no pruner is active on this model.")
    session.local.prompt = {"visual_mask": visual_mask}


def tower_run(model: nn.Module) -> TowerRun | None:
    """The pass through the vision tower that is under way in this thread for a pruner that looks into it."""
    patch = _Patch.active(model)
    return patch.tower_run() if patch is not None else None


class _Patch:
    """The dispatchers on one model, shared by all sessions on it."""

    _lock = threading.RLock()
    _by_decoder: ClassVar[dict[int, "_Patch"]] = {}

    def __init__(self, parts: Anatomy) -> None:
        self.parts = parts
        self.users = 0
        self.sessions: list[Session] = []
        self.in_tower = False
        self.undo: list[Callable[[], None]] = []

    @classmethod
    def acquire(cls, model: nn.Module) -> "_Patch":
        """The patch on `model`, installed if it is the first."""
        parts = anatomy(model)
        require_known_release(parts.layers)
        with cls._lock:
            patch = cls._by_decoder.get(id(parts.decoder))
            if patch is None:
                patch = cls(parts)
                try:
                    patch._install(model)
                except BaseException:
                    patch._remove()
                    raise
                cls._by_decoder[id(parts.decoder)] = patch
            patch.users += 1
            return patch

    @classmethod
    def active(cls, model: nn.Module) -> "_Patch | None":
        """The patch on `model`, if a pruner is active on it."""
        with cls._lock:
            return cls._by_decoder.get(id(anatomy(model).decoder))

    def release(self) -> None:
        """Give the patch back; the last user removes it."""
        with self._lock:
            self.users -= 1
            if self.users == 0:
                del self._by_decoder[id(self.parts.decoder)]
                self._remove()

    def open(self, session: Session) -> None:
        with self._lock:
            if session.looks_into_tower and not self.in_tower:
                self._install_in_tower()
            self.sessions.append(session)

    def close(self, session: Session | None) -> None:
        with self._lock:
            if session is not None and session in self.sessions:
                self.sessions.remove(session)

    def session(self) -> Session | None:
        """The session that serves the calling thread: its own innermost one, else the only one there is."""
        thread = threading.get_ident()
        with self._lock:
            own = [session for session in self.sessions if session.thread == thread]
            if own:
                return own[-1]
            if len(self.sessions) > 1:
                raise UnsupportedModel(
                    f"{len(self.sessions)} pruners are active on this model in other threads, none in this one; "
                    "enter a pruner's context in the thread that runs the model."
                )
            return self.sessions[0] if self.sessions else None

    def _install(self, model: nn.Module) -> None:
        parts = self.parts
        prepare = getattr(model, "prepare_inputs_for_generation", None)
        if prepare is not None:
            self.undo.append(set_attribute(model, "prepare_inputs_for_generation", self._noting_prefill(prepare)))
        features = getattr(parts.parent, "get_image_features", None)
        if features is not None:
            self.undo.append(set_attribute(parts.parent, "get_image_features", self._noting_images(features)))
        hooks = [
            parts.parent.register_forward_pre_hook(self._on_prompt, with_kwargs=True),
            parts.decoder.register_forward_pre_hook(self._on_decoder, with_kwargs=True),
            parts.decoder.register_forward_hook(self._after_decoder, always_call=True),
        ]
        layers: Iterable[Any] = parts.layers
        for index, layer in enumerate(layers):
            hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(gather_survivors))
            self.undo.append(set_attribute(layer, "forward", _Dispatcher(self, Layer(index, layer, layer.forward))))
            self.undo.append(set_attribute(layer.self_attn, "config", observing_config(layer.self_attn.config)))
        self.undo.extend(hook.remove for hook in hooks)

    def _install_in_tower(self) -> None:
        """What methods need that look into the vision tower."""
        tower = Tower.of(self.parts)
        if tower is None:
            return
        self.in_tower = True
        self.undo.append(set_attribute(tower.module, "forward", self._encoding(tower.module.forward)))
        pack = getattr(self.parts.parent, "pack_image_features", None)
        if pack is not None:
            self.undo.append(set_attribute(self.parts.parent, "pack_image_features", self._noting_packing(pack)))
        hooks = [
            tower.projector.register_forward_pre_hook(self._before_projector),
            tower.projector.register_forward_hook(self._after_projector),
        ]
        layers: Iterable[Any] = tower.layers
        for index, layer in enumerate(layers):
            for part in ("q_proj", "k_proj"):
                noting = functools.partial(self._on_tower_projection, index, part)
                hooks.append(getattr(layer.self_attn, part).register_forward_hook(noting))
            self.undo.append(set_attribute(layer, "forward", self._tower_layer(index, layer, layer.forward)))
        self.undo.extend(hook.remove for hook in hooks)

    def tower_run(self) -> TowerRun | None:
        session = self.session()
        return session.tower_run() if session is not None else None

    def _encoding(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The vision tower's forward, on the pixels that the pruner wants encoded."""

        @functools.wraps(forward)
        def encode(pixel_values: torch.Tensor, **kwargs: Any) -> Any:
            run = self.tower_run()
            return forward(pixel_values, **kwargs) if run is None else run.encode(forward, pixel_values, kwargs)

        return encode

    def _tower_layer(self, index: int, layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        """One layer of the vision tower."""

        @functools.wraps(forward)
        def through(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
            run, kwargs = self.tower_run(), {**kwargs, "attention_mask": attention_mask}
            return (
                forward(hidden_states, **kwargs) if run is None else run.run_layer(index, layer, forward, hidden_states, kwargs)
            )

        return through

    def _noting_packing(self, pack: Callable[..., Any]) -> Callable[..., Any]:
        """The packing of tiles into a prompt, noting which patch lands in which place: patch numbers are packed as well."""
        signature = inspect.signature(pack)

        @functools.wraps(pack)
        def packed(*args: Any, **kwargs: Any) -> Any:
            output, run = pack(*args, **kwargs), self.tower_run()
            if run is not None:
                call = signature.bind(*args, **kwargs)
                call.arguments["image_features"] = run.numbers([len(image) for image in call.arguments["image_features"]])
                if (newline := call.arguments.get("image_newline")) is not None:
                    call.arguments["image_newline"] = torch.full((1,), -1.0, device=newline.device)
                run.note_packing(pack(*call.args, **call.kwargs)[0])
            return output

        return packed

    def _on_tower_projection(self, index: int, part: str, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if (run := self.tower_run()) is not None:
            run.note_projection(index, part, output)

    def _before_projector(self, module: nn.Module, args: tuple) -> None:
        if (run := self.tower_run()) is not None:
            run.before_projector(args[0])

    def _after_projector(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
        run = self.tower_run()
        return None if run is None else run.after_projector(output)

    def _remove(self) -> None:
        for undo in reversed(self.undo):
            undo()
        self.undo.clear()

    def _noting_prefill(self, prepare: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`'s preparation of a step, noting whether the step belongs to the prompt: a last chunk of one token looks
        like a decoded one to the model."""

        @functools.wraps(prepare)
        def prepared(*args: Any, **kwargs: Any) -> Any:
            session = self.session()
            if session is not None:
                session.local.step = "prompt" if kwargs.get("is_first_iteration") else "decoding"
            return prepare(*args, **kwargs)

        return prepared

    def _noting_images(self, features: Callable[..., Any]) -> Callable[..., Any]:
        """The encoding of images, which `generate` calls itself before the forward, noting what they were."""
        signature = inspect.signature(features)

        @functools.wraps(features)
        def noted(*args: Any, **kwargs: Any) -> Any:
            session = self.session()
            if session is None:
                return features(*args, **kwargs)
            run = session.start_tower()
            try:
                output = features(*args, **kwargs)
            finally:
                if run is not None:
                    run.finish()
            session.local.images = Images.of(signature.bind(*args, **kwargs).arguments, output)
            return output

        return noted

    def _on_prompt(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        session = self.session()
        if session is not None:
            if args:
                kwargs = {**dict(zip(("input_ids", "pixel_values", "attention_mask"), args, strict=False)), **kwargs}
            session.local.prompt = kwargs

    def _on_decoder(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        session = self.session()
        if session is None:
            return None
        return args, session.begin(kwargs)

    def _after_decoder(self, module: nn.Module, args: tuple, output: Any) -> None:
        session = self.session()
        if session is not None:
            session.local.forward = session.local.prompt = session.local.images = session.local.tower = None
            session.local.step = None


class _Dispatcher:
    """Stands in for one decoder layer's forward."""

    def __init__(self, patch: _Patch, layer: Layer) -> None:
        self.patch, self.layer = patch, layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        session = self.patch.session()
        if session is None:
            return self.layer.forward(*args, **kwargs)
        if len(args) > 1:
            raise UnsupportedModel("decoder layers must be called with keyword arguments to be pruned.")
        session.check_arguments(self.layer, kwargs)
        forward = getattr(session.local, "forward", None)
        if forward is None:
            return self.layer.forward(*args, **kwargs)
        hidden = args[0] if args else kwargs.pop("hidden_states")
        return forward.run(self.layer, hidden, kwargs)
