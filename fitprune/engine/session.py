"""`Session`: one pruner on one model, from entering its context to leaving it. It tells prompts from decoded tokens."""

import dataclasses
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from fitprune.engine.context import Layer, RunContext
from fitprune.engine.decode import Decode
from fitprune.engine.prefill import Prefill
from fitprune.engine.tower import TowerRun, require_patches
from fitprune.errors import UnsupportedModel
from fitprune.interface.hooks import Hooks
from fitprune.models.images import Encoded, same_images
from fitprune.models.kv_cache import CacheState, HeldRows, attach, state_of
from fitprune.models.parts import PIXELS, ModelParts, brings, mask_of, newline_mask, refuse_video, visual_mask
from fitprune.models.releases import cache_in, release, require_arguments
from fitprune.models.tower import tower_parts


@dataclass(frozen=True)
class Call:
    """What is known of the forward that is under way in one execution context, or about to begin.

    Attributes:
        step: "prompt" or "decoding", as `generate` says; None where the model is called directly.
        text_cache: a KV cache whose tokens `generate` was given too, none of them an image's.
        encoded: what was encoded for it, by `generate` or by the forward itself: under "image", under "video".
        tower: the pass of its images through the vision tower, where the pruner looks into it.
        prompt: the arguments of the model's forward.
        forward: what runs its layers; None where nothing is pruned.
        cache: the KV cache that the decoder was called with.
        caching: whether the decoder must hand a KV cache to its layers.
    """

    step: str | None = None
    text_cache: Any = None
    encoded: Mapping[str, Encoded] = field(default_factory=dict)
    tower: TowerRun | None = None
    prompt: dict[str, Any] | None = None
    forward: Prefill | Decode | None = None
    cache: Any = None
    caching: bool = False


# By session. A value is replaced, never changed: threads and tasks may start with a copy of it.
_calls: ContextVar[dict["weakref.ref[Session]", Call] | None] = ContextVar("fitprune_calls", default=None)


class Session:
    """One pruner on one model."""

    def __init__(
        self, parts: ModelParts, pruner: Hooks, visual_mask: torch.Tensor | None = None, record_all: bool = False
    ) -> None:
        """`visual_mask` (batch, T): where visual tokens of prompts that come as embeddings are; `record_all`: see `Trace`."""
        self.context = RunContext.of(parts, pruner, record_all)
        self.visual_mask = visual_mask
        self._key = weakref.ref(self)

    @property
    def call(self) -> Call:
        """The forward that is under way in this execution context."""
        return (_calls.get() or {}).get(self._key, Call())

    def note(self, **facts: Any) -> None:
        """Set attributes of `call`."""
        others = {key: call for key, call in (_calls.get() or {}).items() if key() is not None}
        _calls.set({**others, self._key: dataclasses.replace(self.call, **facts)})

    def forget(self) -> None:
        """Empty `call`: the forward is over."""
        _calls.set({key: call for key, call in (_calls.get() or {}).items() if key != self._key and key() is not None})

    def start_tower(self, arguments: Mapping[str, Any]) -> TowerRun | None:
        """Images are about to be encoded, by `get_image_features` with these `arguments`; the run of the tower where the pruner
        looks into it.
        """
        # Of images that were encoded before, nothing is left: they belong to another prompt, or to one that failed.
        self.note_encoded("image", None)
        self.note(tower=None)
        pruner = self.context.pruner
        if not pruner.looks_into_tower:
            return None
        tower = tower_parts(self.context.parts, arguments.get("vision_feature_layer"))
        if tower is None:
            return None
        if (strategy := arguments.get("vision_feature_select_strategy")) is not None:
            require_patches(tower, pruner, strategy)
        run = TowerRun(tower, pruner)
        self.note(tower=run)
        return run

    def note_encoded(self, kind: str, encoded: Encoded | None) -> None:
        """Note what was encoded of a kind, "image" or "video"; None for nothing, whatever was before."""
        others = {other: one for other, one in self.call.encoded.items() if other != kind}
        self.note(encoded=others if encoded is None else {**others, kind: encoded})

    def tower_run(self) -> TowerRun | None:
        """The pass through the vision tower that is under way in this execution context."""
        run = self.call.tower
        return run if run is not None and run.active else None

    def begin(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Start a forward of the decoder, called with `kwargs`; returns the arguments to call it with."""
        prompt = self.call.prompt
        if prompt is None:
            raise UnsupportedModel("a pruned model must be called as a whole, not through its text decoder alone.")
        cache = cache_in(kwargs)
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        if isinstance(mask, dict):  # Gemma 3 makes the masks of its types of layers before its decoder
            mask = prompt.get("attention_mask")
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 2):
            raise UnsupportedModel(
                "pruning needs a 2-D attention mask and a dynamic cache; this call brought a prepared mask "
                "(a static cache, or a mask of the caller's own)."
            )
        self.note(cache=cache, caching=self._caching(kwargs, cache))
        if getattr(cache, "is_compileable", False):
            raise UnsupportedModel(f"a {type(cache).__name__} has one length for all layers; use a dynamic cache to prune.")
        if past == 0:
            forward: Prefill | Decode = self._begin_prefill(prompt, self.visual(prompt).to(_given(kwargs).device), mask, kwargs)
        else:
            state = self._continued(prompt, past, _length(kwargs))
            if not state.pruned:
                state.seen = past + _length(kwargs)
                return kwargs
            forward = Decode(self.context, state, cache, mask, _length(kwargs))
        self.note(forward=forward)
        return forward.arguments(kwargs)

    def visual(self, prompt: dict[str, Any]) -> torch.Tensor:
        """Which positions of a forward hold visual tokens: bool (batch, sequence).

        Embeddings that hold their image already show no image token; where the visual tokens are must be said then.
        """
        if prompt.get("visual_mask") is not None or prompt.get("input_ids") is not None or prompt.get("inputs_embeds") is None:
            return visual_mask(self.context.parts, prompt)
        found, said = visual_mask(self.context.parts, prompt), self.visual_mask
        if said is None:
            if bool(found.any()):
                return found
            raise UnsupportedModel(
                "this prompt came as inputs_embeds without image tokens: an image in it would go unpruned. Say where its "
                "visual tokens are with pruner(model, visual_mask=mask), bool (batch, sequence), all False for a text prompt."
            )
        copies, rest = divmod(len(found), max(len(said), 1))
        if rest or said.shape[1:] != found.shape[1:]:
            raise UnsupportedModel(
                f"visual_mask has the shape {tuple(said.shape)}, the prompt {tuple(found.shape)}; give one row for each prompt."
            )
        # With beams each prompt stands several times in a row.
        return said.to(found.device, torch.bool).repeat_interleave(copies, 0)

    def _begin_prefill(
        self, prompt: dict[str, Any], visual: torch.Tensor, mask: torch.Tensor | None, kwargs: dict[str, Any]
    ) -> Prefill:
        call, parts, pruner = self.call, self.context.parts, self.context.pruner
        if call.step == "decoding" and call.caching:
            raise UnsupportedModel(
                f"generate() of {release()} decodes with an empty KV cache: a token would be taken for a prompt. "
                "Install a tested release, or call with use_cache=False."
            )
        refuse_video(parts, prompt)
        if pruner.looks_into_tower and brings(prompt, "video"):
            raise UnsupportedModel(
                f"{pruner.name} works in the vision tower, where the frames of a video are not what the decoder is given: they "
                "are pooled behind it. Pass the frames as images, or choose a method that prunes by what the decoder is given."
            )
        self._check_window(_length(kwargs))
        real = visual if mask is None else visual & mask.to(visual.device, torch.bool)
        pool = real
        if pruner.newlines != "pruned":
            known = prompt.get("newline_mask")
            pool = real & ~(known if known is not None else newline_mask(parts, real, kwargs.get("inputs_embeds")))
        if call.tower is None and pruner.looks_into_tower and bool(real.any()):
            raise UnsupportedModel(
                f"{pruner.name} works in the vision tower, which did not run inside its context; "
                "call the model with pixel_values, inside it."
            )
        own = {kind: one for kind, one in call.encoded.items() if _is_its_own(kind, one, prompt, real, kwargs)}
        if pruner.looks_into_tower and own.keys() != call.encoded.keys():
            raise UnsupportedModel(
                f"{pruner.name} ranks a prompt's images by what it saw of them in the vision tower, and the images of this "
                "prompt are not those that were encoded last; encode them and call the model, one prompt after the other."
            )
        seen = {}
        for kind, one in own.items():
            if one.images is not None:
                of_kind = real if len(own) == 1 else real & mask_of(parts, prompt, kind).to(real.device)
                seen[kind] = one.images, of_kind
        return Prefill(self.context, real, pool, mask, {**prompt, "seen": seen}, call.tower)

    def _continued(self, prompt: dict[str, Any], past: int, length: int) -> CacheState:
        """What the cache of a forward over `length` tokens carries, `past` of the unpruned sequence being in it already.

        Raises:
            UnsupportedModel: it was filled elsewhere, or images come in.
        """
        call = self.call
        state = state_of(call.cache)
        if state is None and call.text_cache is call.cache:
            state = CacheState(HeldRows(past))
            attach(call.cache, state)
        if state is None or past > state.seen:
            raise UnsupportedModel(
                "this KV cache was filled outside the pruner's context; run the prompt and its continuation inside one."
            )
        # A lone image token without an image is one that the model itself has generated. `generate` encodes images before the
        # forward, which then brings none: they are known in either case.
        if (length > 1 or call.encoded) and bool(self.visual(prompt).any()):
            raise late_images(state.seen)
        self._check_window(state.seen + length)
        return state

    def run_layer(self, at: Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One decoder layer, called with `args` and `kwargs`.

        Raises:
            UnsupportedModel: the first layer is not given what pruning relies on.
        """
        if len(args) > 1:
            raise UnsupportedModel("decoder layers must be called with keyword arguments to be pruned.")
        call = self.call
        if at.index == 0:
            require_arguments(at.module, kwargs, call.cache, call.caching)
            # A decoder may make the cache itself; so it is known only now.
            cache = cache_in(kwargs)
            if cache is not None and isinstance(call.forward, Prefill):
                attach(cache, call.forward.state)
        if call.forward is None:
            return at.forward(*args, **kwargs)
        hidden = args[0] if args else kwargs.pop("hidden_states")
        call.forward.state.served = True
        try:
            return call.forward.run(at, hidden, kwargs)
        finally:
            call.forward.state.served = False

    def _caching(self, kwargs: dict[str, Any], cache: Any) -> bool:
        """Whether a decoder called with `kwargs` must hand a KV cache to its layers."""
        if cache is not None:
            return True
        decoder, asked = self.context.parts.decoder, kwargs.get("use_cache")
        # A decoder in training may switch caching off by itself, under gradient checkpointing.
        return bool(decoder.config.use_cache if asked is None else asked) and not decoder.training

    def _check_window(self, length: int) -> None:
        config = self.context.parts.text_config
        window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        sliding = (types is None or "sliding_attention" in types) and getattr(config, "use_sliding_window", True)
        if window is not None and sliding and length > window:
            raise UnsupportedModel(
                f"{length} tokens exceed this model's sliding window of {window}; pruning inside a window is not defined."
            )


def _is_its_own(kind: str, encoded: Encoded, prompt: dict[str, Any], real: torch.Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether the images or videos that were `encoded` last are the prompt's.

    Of embeddings that the caller made, the values tell: of images alone, or of videos alone.
    """
    if encoded.features is None or prompt.get(PIXELS[kind]) is not None or prompt.get("visual_mask") is not None:
        return True
    handed, embeds = prompt.get("mm_encoder_outputs"), kwargs.get("inputs_embeds")
    if handed is not None:
        return same_images(getattr(handed.get(kind), "pooler_output", ()), encoded.features)
    if embeds is None or prompt.get("inputs_embeds") is None:
        return True
    made = torch.cat([image.flatten(0, -2) for image in encoded.features]).to(embeds.device, embeds.dtype)
    counts = real.sum(1).tolist()
    # With beams each prompt stands several times in a row; the first of them tells.
    copies = max(sum(counts) // max(len(made), 1), 1)
    there = torch.cat([row[of.to(row.device)] for row, of in zip(embeds[::copies], real[::copies], strict=True)])
    return not sum(counts) or (there.shape == made.shape and bool((there == made).all()))


def _given(kwargs: dict[str, Any]) -> torch.Tensor:
    """The tokens that the decoder, called with `kwargs`, is given: embeddings or ids."""
    embeds = kwargs.get("inputs_embeds")
    return embeds if embeds is not None else kwargs["input_ids"]


def _length(kwargs: dict[str, Any]) -> int:
    """How many these are."""
    return _given(kwargs).shape[1]


def late_images(seen: int) -> UnsupportedModel:
    """The error for images that come in when `seen` tokens are in the KV cache."""
    return UnsupportedModel(
        f"an image or video comes in after {seen} tokens in the KV cache: both are pruned in one prefill only. Those of "
        "earlier turns are in the cache: leave out their pixels; for a new one give the whole conversation anew, without the "
        "cache."
    )
