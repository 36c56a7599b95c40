"""`DecoderHooks`: the forwards of a live decoder and of its layers, replaced for a while."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import nn

from fitprune.engine.context import Layer
from fitprune.engine.session import Session
from fitprune.engine.tap import gather_survivors, observing_config
from fitprune.engine.undo import set_attribute
from fitprune.models.parts import ModelParts


class DecoderHooks:
    """What stands on a decoder: a `LayerForward` on each layer, an observed attention, and a look at each of its calls."""

    def __init__(self, parts: ModelParts, serving: Callable[[], Session | None]) -> None:
        """`serving` answers which session serves a call; None for none."""
        self.parts, self.serving = parts, serving
        self.undo = ExitStack()

    def install(self) -> None:
        """Put the hooks on the decoder."""
        decoder = self.parts.decoder
        self.undo.callback(decoder.register_forward_pre_hook(self._before, with_kwargs=True).remove)
        self.undo.callback(decoder.register_forward_hook(self._after, always_call=True).remove)
        layers: Iterable[Any] = self.parts.layers
        for index, layer in enumerate(layers):
            attention = layer.self_attn
            self.undo.callback(attention.o_proj.register_forward_pre_hook(gather_survivors).remove)
            set_attribute(self.undo, attention, "config", observing_config(attention.config))
            set_attribute(self.undo, layer, "forward", LayerForward(Layer(index, layer, layer.forward), self.serving))

    def remove(self) -> None:
        """Take all of them off again, also where one of them fails to go."""
        self.undo.close()

    def _before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        session = self.serving()
        return None if session is None else (args, session.begin(kwargs))

    def _after(self, module: nn.Module, args: tuple, output: Any) -> None:
        session = self.serving()
        if session is not None:
            session.forget()


class LayerForward:
    """Stands in for one decoder layer's forward."""

    def __init__(self, layer: Layer, serving: Callable[[], Session | None]) -> None:
        self.layer, self.serving = layer, serving

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        session = self.serving()
        if session is None:
            return self.layer.forward(*args, **kwargs)
        return session.run_layer(self.layer, args, kwargs)
