"""`GenerateHooks`: what comes before the decoder of a live model, noted for the session that serves the call.

They note the kind of step that `generate` prepares, the images that are encoded, and the arguments of the model's forward.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn

from fitprune.engine.session import Session
from fitprune.engine.undo import set_attribute
from fitprune.models.images import Images
from fitprune.models.parts import ModelParts
from fitprune.models.releases import cache_in


def _step(arguments: dict[str, Any]) -> str | None:
    """Which kind of step `generate` prepares: "prompt", "decoding", or None where it does not say.

    Before transformers 5.22 a chunk of a prompt is not said to be the first step. It comes with an empty cache, or with none.
    """
    if arguments.get("is_first_iteration"):
        return "prompt"
    cache = cache_in(arguments)
    filled = cache is not None and int(cache.get_seq_length()) > 0
    return "decoding" if filled or cache is None else None


class GenerateHooks:
    """What stands on a model, and on the module that owns its decoder."""

    def __init__(self, model: nn.Module, parts: ModelParts, serving: Callable[[], Session | None]) -> None:
        """`serving` answers which session serves a call; None for none."""
        self.model, self.parts, self.serving = model, parts, serving
        self.undo = ExitStack()

    def install(self) -> None:
        """Put the hooks on the model."""
        parent = self.parts.parent
        prepare = getattr(self.model, "prepare_inputs_for_generation", None)
        if prepare is not None:
            set_attribute(self.undo, self.model, "prepare_inputs_for_generation", self._noting_step(prepare))
        features = getattr(parent, "get_image_features", None)
        if features is not None:
            set_attribute(self.undo, parent, "get_image_features", self._noting_images(features))
        self.undo.callback(parent.register_forward_pre_hook(self._before_parent, with_kwargs=True).remove)

    def remove(self) -> None:
        """Take all of them off again, also where one of them fails to go."""
        self.undo.close()

    def _noting_step(self, prepare: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`'s preparation of a step, noting whether the step belongs to the prompt.

        A prompt's last chunk of one token looks like a decoded token to the model.
        """

        @functools.wraps(prepare)
        def prepared(*args: Any, **kwargs: Any) -> Any:
            session = self.serving()
            if session is not None:
                session.note(step=_step(kwargs))
            return prepare(*args, **kwargs)

        return prepared

    def _noting_images(self, features: Callable[..., Any]) -> Callable[..., Any]:
        """The encoding of images, which `generate` calls itself before the forward, noting what they were."""
        signature = inspect.signature(features)

        @functools.wraps(features)
        def noted(*args: Any, **kwargs: Any) -> Any:
            session = self.serving()
            if session is None:
                return features(*args, **kwargs)
            run = session.start_tower()
            try:
                output = features(*args, **kwargs)
            finally:
                if run is not None:
                    run.finish()
            session.note(images=Images.of(signature.bind(*args, **kwargs).arguments, output))
            return output

        return noted

    def _before_parent(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        session = self.serving()
        if session is not None:
            if args:
                kwargs = {**dict(zip(("input_ids", "pixel_values", "attention_mask"), args, strict=False)), **kwargs}
            session.note(prompt=kwargs)
