"""One pruner on one model, entered in one thread."""

import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch

from fitprune.engine.decode import CacheState, Decode
from fitprune.engine.layer import Layer
from fitprune.engine.prefill import Prefill
from fitprune.engine.tower import Tower, TowerRun, looks_into_tower
from fitprune.errors import UnsupportedModel
from fitprune.interface.trace import Trace
from fitprune.models.parts import Anatomy, newline_mask, refuse_video, visual_mask
from fitprune.models.releases import cache_in, release, require_arguments

if TYPE_CHECKING:
    from fitprune.pruner import Pruner


class Session:
    """One pruner on one model in one thread."""

    def __init__(self, parts: Anatomy, pruner: "Pruner") -> None:
        self.parts, self.pruner = parts, pruner
        self.thread = threading.get_ident()
        self.trace = Trace()
        self.local = threading.local()
        self.caches: weakref.WeakKeyDictionary[Any, CacheState] = weakref.WeakKeyDictionary()
        self.observed = frozenset(pruner.observed_layers(len(parts.layers)))
        self.looks_into_tower = looks_into_tower(pruner)

    def begin(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Start a forward of the decoder, called with `kwargs`; returns the arguments to call it with."""
        prompt = getattr(self.local, "prompt", None)
        if prompt is None:
            raise UnsupportedModel("a pruned model must be called as a whole, not through its text decoder alone.")
        visual = visual_mask(self.parts, prompt)
        mask = kwargs.get("attention_mask")
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 2):
            raise UnsupportedModel(
                "pruning needs a 2-D attention mask and a dynamic cache; this call brought a prepared mask "
                "(a static cache, or a mask of the caller's own)."
            )
        # generate() encodes images before the forward, which then brings none; they were seen in either case.
        images = getattr(self.local, "images", None)
        cache = cache_in(kwargs)
        self.local.cache, self.local.caching = cache, self._caching(kwargs, cache)
        if getattr(cache, "is_compileable", False):
            raise UnsupportedModel(f"a {type(cache).__name__} has one length for all layers; use a dynamic cache to prune.")
        past = int(cache.get_seq_length()) if cache is not None else 0
        embeds = kwargs.get("inputs_embeds")
        length = (embeds if embeds is not None else kwargs["input_ids"]).shape[1]
        step = getattr(self.local, "step", None)
        if past == 0:
            if step == "decoding" and self.local.caching:
                raise UnsupportedModel(
                    f"generate() of {release()} decodes with an empty KV cache: a token would be taken for a prompt. "
                    "Install a tested release, or call with use_cache=False."
                )
            refuse_video(prompt)
            self._check_window(length)
            real = visual if mask is None else visual & mask.to(visual.device, torch.bool)
            pool = real if self.pruner.newlines == "pruned" else real & ~newline_mask(self.parts, real, embeds)
            prompt = {**prompt, "images": images, "image_tokens": real.sum(1)}
            tower = getattr(self.local, "tower", None)
            if tower is None and self.looks_into_tower and bool(real.any()):
                raise UnsupportedModel(
                    f"{self.pruner.name} works in the vision tower, which did not run inside its context; "
                    "call the model with pixel_values, inside it."
                )
            self.local.forward = Prefill(self, real, pool, mask, prompt, tower)
            return self.local.forward.arguments(kwargs)
        state = self.caches.get(cache)
        if state is None:
            raise UnsupportedModel(
                "this KV cache was filled outside the pruner's context; run the prompt and its continuation inside one."
            )
        # A lone image token without an image is one that the model itself has generated.
        brought = bool(visual.any()) and (length > 1 or images is not None)
        prompting = length > 1 or step == "prompt"
        if brought or (prompting and state.visual):
            raise UnsupportedModel(
                f"{length} more prompt tokens after a cached prefill of {state.seen}: a prompt with an image is pruned in "
                "one prefill only; switch off chunked prefill and assisted decoding."
            )
        self._check_window(state.seen + length)
        # The cache of a pruned layer is shorter than the sequence, so its length would give a wrong position.
        if kwargs.get("position_ids") is None:
            positions = torch.arange(state.seen, state.seen + length, device=visual.device)
            kwargs = {**kwargs, "position_ids": positions[None]}
        elif prompt.get("position_ids") is None and mask is None:
            # Positions on several axes, which the model itself has derived from that length.
            kwargs = {**kwargs, "position_ids": kwargs["position_ids"] + (state.seen - past)}
        if (shift := state.shift[0]) is not None:
            kwargs = {**kwargs, "position_ids": kwargs["position_ids"] - shift[:, None]}
        self.local.forward = Decode(self, state, cache, length) if state.visual else None
        state.seen += length
        return kwargs

    def check_arguments(self, layer: Layer, kwargs: dict[str, Any]) -> None:
        """Raise UnsupportedModel where the decoder's first layer, called with `kwargs`, is not given what pruning relies on."""
        if layer.index == 0:
            require_arguments(layer.module, kwargs, self.local.cache, self.local.caching)

    def _caching(self, kwargs: dict[str, Any], cache: Any) -> bool:
        """Whether a decoder called with `kwargs` must hand a KV cache to its layers."""
        if cache is not None:
            return True
        asked = kwargs.get("use_cache")
        # A decoder in training may switch caching off by itself, under gradient checkpointing.
        return bool(self.parts.decoder.config.use_cache if asked is None else asked) and not self.parts.decoder.training

    def start_tower(self) -> TowerRun | None:
        """Images are about to be encoded; the run of the tower where the pruner looks into it."""
        tower = Tower.of(self.parts) if self.looks_into_tower else None
        self.local.tower = None if tower is None else TowerRun(tower, self.pruner)
        return self.local.tower

    def tower_run(self) -> TowerRun | None:
        """The run of the tower that is under way in this thread."""
        run = getattr(self.local, "tower", None)
        return run if run is not None and run.active else None

    def _check_window(self, length: int) -> None:
        config = self.parts.text_config
        window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        sliding = (types is None or "sliding_attention" in types) and getattr(config, "use_sliding_window", True)
        if window is not None and sliding and length > window:
            raise UnsupportedModel(
                f"{length} tokens exceed this model's sliding window of {window}; pruning inside a window is not defined."
            )
