"""`TowerHooks`: the forwards of a live vision tower, replaced for a while for methods that look into it."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fitprune.engine.session import Session
from fitprune.engine.tower import TowerRun
from fitprune.engine.undo import Attachments
from fitprune.models.parts import ModelParts
from fitprune.models.tower import TowerParts


class TowerHooks:
    """What stands on a vision tower, its layers, its projector, and the packing of its tiles into a prompt."""

    def __init__(self, parts: ModelParts, tower: TowerParts, serving: Callable[[], Session | None]) -> None:
        """`serving` answers which session serves a call; None for none."""
        self.parent, self.tower, self.serving = parts.parent, tower, serving
        self.attached = Attachments()

    def install(self) -> None:
        """Put the hooks on the tower."""
        tower = self.tower
        self.attached.set(tower.module, "forward", self._encoding(tower.module.forward))
        pack = getattr(self.parent, "pack_image_features", None)
        if pack is not None:
            self.attached.set(self.parent, "pack_image_features", self._noting_packing(pack))
        self.attached.hook(tower.projector.register_forward_pre_hook, self._before_projector)
        self.attached.hook(tower.projector.register_forward_hook, self._after_projector)
        layers: Iterable[Any] = tower.layers
        for index, layer in enumerate(layers):
            self.attached.set(layer, "forward", self._through_layer(index, layer, layer.forward))
        self._cover()

    def _cover(self) -> None:
        """Put hooks on the projections as they are now: adapters replace them, also inside a context.

        Where an adapter stands around a projection, both are noted, the adapter's result last.
        """
        layers: Iterable[Any] = self.tower.layers
        for index, layer in enumerate(layers):
            for part in ("q_proj", "k_proj"):
                projection = getattr(layer.self_attn, part)
                if projection not in self.attached:
                    self.attached.hook(projection.register_forward_hook, functools.partial(self._after_projection, index, part))

    def remove(self) -> None:
        """Take all of them off again, also where one of them fails to go."""
        self.attached.remove()

    def _run(self) -> TowerRun | None:
        session = self.serving()
        return session.tower_run() if session is not None else None

    def _encoding(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The vision tower's forward, on the pixels that the pruner wants encoded."""

        @functools.wraps(forward)
        def encode(pixel_values: torch.Tensor, **kwargs: Any) -> Any:
            run = self._run()
            if run is None:
                return forward(pixel_values, **kwargs)
            self._cover()
            return run.encode(forward, pixel_values, kwargs)

        return encode

    def _through_layer(self, index: int, layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward of one layer of the vision tower."""

        @functools.wraps(forward)
        def through(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
            run, kwargs = self._run(), {**kwargs, "attention_mask": attention_mask}
            return (
                forward(hidden_states, **kwargs) if run is None else run.run_layer(index, layer, forward, hidden_states, kwargs)
            )

        return through

    def _noting_packing(self, pack: Callable[..., Any]) -> Callable[..., Any]:
        """The model's packing of tiles into a prompt.

        It runs a second time on global patch indices in place of features, which tells the patch at each prompt position.
        """
        signature = inspect.signature(pack)

        @functools.wraps(pack)
        def packed(*args: Any, **kwargs: Any) -> Any:
            output, run = pack(*args, **kwargs), self._run()
            if run is not None:
                call = signature.bind(*args, **kwargs)
                call.arguments["image_features"] = run.indices([len(image) for image in call.arguments["image_features"]])
                if call.arguments.get("image_newline") is not None:
                    call.arguments["image_newline"] = torch.full((1,), -1.0, device=call.arguments["image_features"][0].device)
                run.note_packing(pack(*call.args, **call.kwargs)[0])
            return output

        return packed

    def _after_projection(self, index: int, part: str, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if (run := self._run()) is not None:
            run.note_projection(index, part, output)

    def _before_projector(self, module: nn.Module, args: tuple) -> None:
        if (run := self._run()) is not None:
            run.before_projector(args[0])

    def _after_projector(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
        run = self._run()
        return None if run is None else run.after_projector(output)
