"""`DecoderHooks`: the forwards of a live decoder and of its layers, replaced for a while."""

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fitprune.engine.context import Layer
from fitprune.engine.session import Session
from fitprune.engine.tap import gather_survivors, observing_config
from fitprune.engine.undo import Attachments
from fitprune.errors import UnsupportedModel
from fitprune.models.parts import ModelParts


class DecoderHooks:
    """What stands on a decoder: a `LayerForward` on each layer, an observed attention, and a look at each of its calls."""

    def __init__(self, parts: ModelParts, serving: Callable[[], Session | None]) -> None:
        """`serving` answers which session serves a call; None for none."""
        self.parts, self.serving = parts, serving
        self.attached = Attachments()
        self._layers: tuple[Any, ...] = tuple(parts.layers)
        self._lock = threading.Lock()

    def install(self) -> None:
        """Put the hooks on the decoder."""
        decoder = self.parts.decoder
        self.attached.hook(decoder.register_forward_pre_hook, self._before, with_kwargs=True)
        self.attached.hook(decoder.register_forward_hook, self._after, always_call=True)
        layers: Iterable[Any] = self.parts.layers
        for index, layer in enumerate(layers):
            self.attached.set(layer, "forward", LayerForward(Layer(index, layer, layer.forward), self.serving))
        self._cover()

    def _cover(self) -> None:
        """Put the hooks inside each layer on its modules as they are now: adapters replace them, also inside a context.

        Raises:
            UnsupportedModel: a whole layer, or its forward, was replaced.
        """
        layers: Iterable[Any] = self.parts.decoder.layers
        with self._lock:
            for index, (layer, known) in enumerate(itertools.zip_longest(layers, self._layers)):
                if layer is not known or not isinstance(vars(layer).get("forward"), LayerForward):
                    raise UnsupportedModel(
                        f"decoder layer {index}, or its forward, was replaced, added or removed inside the pruner's context; "
                        "do so before entering it."
                    )
                attention = layer.self_attn
                if attention.o_proj not in self.attached:
                    self.attached.hook(attention.o_proj.register_forward_pre_hook, gather_survivors)
                if attention not in self.attached:
                    self.attached.set(attention, "config", observing_config(attention.config))

    def remove(self) -> None:
        """Take all of them off again, also where one of them fails to go."""
        self.attached.remove()

    def _before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        session = self.serving()
        if session is None:
            return None
        self._cover()
        return args, session.begin(kwargs)

    def _after(self, module: nn.Module, args: tuple, output: Any) -> None:
        session = self.serving()
        if session is not None:
            session.forget()


class LayerForward:
    """Stands in for one decoder layer's forward."""

    def __init__(self, layer: Layer, serving: Callable[[], Session | None]) -> None:
        self.layer, self.serving = layer, serving

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        session = self.serving()
        if session is None:
            return self.layer.forward(*args, **kwargs)
        return session.run_layer(self.layer, args, kwargs)
