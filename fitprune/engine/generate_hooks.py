"""`GenerateHooks`: what comes before the decoder of a live model, noted for the session that serves the call.

They note the kind of step that `generate` prepares, the images that are encoded, and the arguments of the model's forward.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fitprune.engine.session import Session, late_images
from fitprune.engine.undo import Attachments
from fitprune.errors import UnsupportedModel
from fitprune.models.images import Encoded, unmatched
from fitprune.models.kv_cache import state_of
from fitprune.models.parts import ModelParts, brings, mask_of
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
        self.attached = Attachments()

    def install(self) -> None:
        """Put the hooks on the model."""
        parent = self.parts.parent
        # The module whose `generate` runs: under an adapter's wrapper it is the model inside.
        owner = next((m for m in self.model.modules() if any(child is parent for child in m.children())), self.model)
        prepare = getattr(owner, "prepare_inputs_for_generation", None)
        if prepare is not None:
            self.attached.set(owner, "prepare_inputs_for_generation", self._noting_step(prepare))
        for name, refusing in (
            ("_get_candidate_generator", self._refusing_candidates),
            ("_prefill", self._refusing_chunks),
            ("_expand_multimodal_outputs", self._refusing_unmatched),
        ):
            if hasattr(owner, name):
                self.attached.set(owner, name, refusing(getattr(owner, name)))
        if owner is not parent:
            self.attached.hook(owner.register_forward_pre_hook, self._before_owner, with_kwargs=True)
        for name, noting in (("get_image_features", self._noting_images), ("get_video_features", self._noting_videos)):
            if hasattr(parent, name):
                self.attached.set(parent, name, noting(getattr(parent, name)))
        for name, naming in (("get_placeholder_mask", self._naming_unmatched), ("get_rope_index", self._naming_misplaced)):
            if hasattr(parent, name):
                self.attached.set(parent, name, naming(getattr(parent, name)))
        self.attached.hook(parent.register_forward_pre_hook, self._before_parent, with_kwargs=True)

    def remove(self) -> None:
        """Take all of them off again, also where one of them fails to go."""
        self.attached.remove()

    def _noting_step(self, prepare: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`'s preparation of a step, noting whether the step belongs to the prompt.

        A prompt's last chunk of one token looks like a decoded token to the model.
        """

        @functools.wraps(prepare)
        def prepared(*args: Any, **kwargs: Any) -> Any:
            session = self.serving()
            if session is not None:
                session.note(step=_step(kwargs), text_cache=self._text_cache(args, kwargs))
            return prepare(*args, **kwargs)

        return prepared

    def _text_cache(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The cache of this step if no pruner filled it, and its tokens, which are given too, are no image's; else None."""
        cache, ids = cache_in(kwargs), args[0] if args else kwargs.get("input_ids")
        if cache is None or state_of(cache) is not None or ids is None or kwargs.get("next_sequence_length") is None:
            return None
        whole = 0 < int(cache.get_seq_length()) < ids.shape[1]
        return cache if whole and not self.parts.holds_visual(ids) else None

    def _refusing_chunks(self, prefill: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`'s prefill, which may feed a prompt with an image piece by piece: the first would be pruned as if alone."""
        signature = inspect.signature(prefill)

        @functools.wraps(prefill)
        def refused(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            size, ids = given["generation_config"].prefill_chunk_size, given["input_ids"]
            cache = cache_in(given["model_kwargs"])
            first = cache is None or int(cache.get_seq_length()) == 0
            if size is not None and first and self.serving() is not None:
                embeds = given["model_kwargs"].get("inputs_embeds")
                length = (ids if embeds is None else embeds).shape[1]
                if length > size and (embeds is not None or self.parts.holds_visual(ids)):
                    raise UnsupportedModel(
                        f"prefill_chunk_size={size} splits a prompt of {length} tokens, and an image is pruned with its whole "
                        "prompt in view; switch off chunked prefill."
                    )
            return prefill(*args, **kwargs)

        return refused

    def _refusing_candidates(self, candidates: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`'s source of guessed tokens, which stand behind the prompt in the prefill of assisted decoding."""
        signature = inspect.signature(candidates)

        @functools.wraps(candidates)
        def refused(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            ids, state = given.get("input_ids"), state_of(cache_in(given.get("model_kwargs", {})))
            visual = ids is None or (state is not None and state.pruned) or self.parts.holds_visual(ids)
            if visual and self.serving() is not None:
                raise UnsupportedModel(
                    "assisted and prompt-lookup decoding put guessed tokens into the prefill, where a pruner takes them for "
                    "text of the prompt; call generate() without assistant_model and prompt_lookup_num_tokens."
                )
            return candidates(*args, **kwargs)

        return refused

    def _before_owner(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Refuse arguments that name rows of the prompt: pruning shortens the sequence that they would be looked up in."""
        named = ["labels"] if kwargs.get("labels") is not None else []
        if not isinstance(kwargs.get("logits_to_keep", 0), int | None):
            named.append("logits_to_keep")
        session = self.serving() if named else None
        if session is not None and bool(session.visual(_named(args, kwargs)).any()):
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
            arguments = signature.bind(*args, **kwargs).arguments
            run = session.start_tower(arguments | arguments.get("kwargs", {}))
            try:
                output = features(*args, **kwargs)
            finally:
                if run is not None:
                    run.finish()
            session.note_encoded("image", Encoded.of(arguments, output))
            return output

        return noted

    def _noting_videos(self, features: Callable[..., Any]) -> Callable[..., Any]:
        """The same for videos, which a model may take for images on the way: of images that were encoded all stays noted."""
        signature = inspect.signature(features)

        @functools.wraps(features)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if (session := self.serving()) is None:
                return features(*args, **kwargs)
            before, output = session.call, features(*args, **kwargs)
            session.note(encoded=before.encoded, tower=before.tower)
            session.note_encoded("video", Encoded.of(signature.bind(*args, **kwargs).arguments, output))
            return output

        return noted

    def _refusing_unmatched(self, expand: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`'s repetition of images for beams, which tells by numbers of tokens whose an image is."""
        signature = inspect.signature(expand)

        @functools.wraps(expand)
        def refused(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            ids = given.get("input_ids")
            if ids is not None and ids.numel() and self.serving() is not None:
                _require_matched(self.parts, ids, given["mm_encoder_output"])
            return expand(*args, **kwargs)

        return refused

    def _naming_unmatched(self, placing: Callable[..., Any]) -> Callable[..., Any]:
        """The model's search for the places of images and videos, whose error gives numbers of its own."""
        signature = inspect.signature(placing)

        @functools.wraps(placing)
        def placed(*args: Any, **kwargs: Any) -> Any:
            try:
                return placing(*args, **kwargs)
            except ValueError:
                given, session = signature.bind(*args, **kwargs).arguments, self.serving()
                kind = next((kind for kind in self.parts.visual_ids if given.get(f"{kind}_features") is not None), "")
                encoded = session.call.encoded.get(kind) if session is not None else None
                if not (encoded and encoded.features):
                    raise
                tokens = int(mask_of(self.parts, given, kind).sum())
                raise unmatched(kind, tokens, len(encoded.features), encoded.tokens) from None

        return placed

    def _naming_misplaced(self, position: Callable[..., Any]) -> Callable[..., Any]:
        """The model's numbering of positions on several axes, which meets a prompt before its images are encoded."""

        @functools.wraps(position)
        def positioned(*args: Any, **kwargs: Any) -> Any:
            try:
                return position(*args, **kwargs)
            except RuntimeError as error:
                if self.serving() is None:
                    raise
                raise UnsupportedModel(
                    "the visual tokens of this prompt are not as many as its images and videos need; prepare text and images "
                    "together with the model's processor, without truncation."
                ) from error

        return positioned

    def _before_parent(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        # A replica shares its hooks with the original, but not its modules.
        if all(child is not self.parts.decoder for child in module.children()):
            raise UnsupportedModel(
                "this model has another decoder than when the pruner's context was entered: a replica by nn.DataParallel, or "
                "one put in its place. Run one process per device, or enter the context afterwards."
            )
        session = self.serving()
        if session is None:
            return
        prompt = _named(args, kwargs)
        cache = cache_in(prompt)
        seen = 0 if cache is None else int(cache.get_seq_length())
        if seen and (brings(prompt, "image") or brings(prompt, "video")):
            session.forget()
            raise late_images(seen)
        session.note(prompt=prompt)


def _require_matched(parts: ModelParts, ids: torch.Tensor, outputs: dict[str, Any]) -> None:
    for kind, token in parts.visual_ids.items():
        encoded, tokens = Encoded.of({}, outputs.get(kind)), int((ids == token).sum())
        if encoded.features is not None and tokens != encoded.tokens:
            raise unmatched(kind, tokens, len(encoded.features), encoded.tokens)


def _named(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a model's forward, those by position under their names."""
    return {**dict(zip(("input_ids", "pixel_values", "attention_mask"), args, strict=False)), **kwargs}
