"""`GenerateHooks`: what comes before the decoder of a live model, noted for the session that serves the call.

They note the kind of step that `generate` prepares, the images that are encoded, and the arguments of the model's forward.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from fitprune.engine.session import Session
from fitprune.engine.undo import set_attribute
from fitprune.errors import UnsupportedModel
from fitprune.models.images import Images
from fitprune.models.parts import ModelParts, visual_mask
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
        # The module whose `generate` runs: under an adapter's wrapper it is the model inside.
        owner = next((m for m in self.model.modules() if any(child is parent for child in m.children())), self.model)
        prepare = getattr(owner, "prepare_inputs_for_generation", None)
        if prepare is not None:
            set_attribute(self.undo, owner, "prepare_inputs_for_generation", self._noting_step(prepare))
        candidates = getattr(owner, "_get_candidate_generator", None)
        if candidates is not None:
            set_attribute(self.undo, owner, "_get_candidate_generator", self._refusing_candidates(candidates))
        if owner is not parent:
            self.undo.callback(owner.register_forward_pre_hook(self._before_owner, with_kwargs=True).remove)
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

    def _refusing_candidates(self, candidates: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`'s source of guessed tokens, which stand behind the prompt in the prefill of assisted decoding."""
        signature = inspect.signature(candidates)

        @functools.wraps(candidates)
        def refused(*args: Any, **kwargs: Any) -> Any:
            ids = signature.bind(*args, **kwargs).arguments.get("input_ids")
            if self.serving() is not None and (ids is None or bool((ids == self.parts.image_token_id).any())):
                raise UnsupportedModel(
                    "assisted and prompt-lookup decoding put guessed tokens into the prefill, where a pruner takes them for "
                    "text of the prompt; call generate() without assistant_model and prompt_lookup_num_tokens."
                )
            return candidates(*args, **kwargs)

        return refused

    def _before_owner(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Refuse arguments that name rows of the prompt: pruning shortens the sequence that they would be looked up in."""
        named = ["labels"] if kwargs.get("labels") is not None else []
        if isinstance(kwargs.get("logits_to_keep"), torch.Tensor):
            named.append("logits_to_keep")
        if not named or self.serving() is None:
            return
        if bool(visual_mask(self.parts, _named(args, kwargs)).any()):
            raise UnsupportedModel(
                f"{' and '.join(named)} name rows of the whole prompt, and pruning shortens it: they would meet other rows; "
                "compute the loss, or pick the rows, from the output's own logits."
            )

    def _noting_images(self, features: Callable[..., Any]) -> Callable[..., Any]:
        """The encoding of images, which `generate` calls itself before the forward, noting what they were."""
        signature = inspect.signature(features)

        @functools.wraps(features)
        def noted(*args: Any, **kwargs: Any) -> Any:
            session = self.serving()
            if session is None:
                return features(*args, **kwargs)
            if self.parts.newline is not None and self.parts.newline.is_meta:
                raise UnsupportedModel(
                    "this model's image_newline is offloaded, and generate() encodes images before the module that loads it "
                    "runs: transformers cannot. Keep it on a device (device_map), or call the model itself."
                )
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
            session.note(prompt=_named(args, kwargs))


def _named(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a model's forward, those by position under their names."""
    return {**dict(zip(("input_ids", "pixel_values", "attention_mask"), args, strict=False)), **kwargs}
