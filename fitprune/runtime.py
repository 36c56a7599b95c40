"""How a live transformers model is pruned without forking its code.

While at least one pruner is active on a model, each of its decoder layers carries a dispatcher in place of its forward, and
each attention module a configuration that routes through `observed_attention`, which hands queries and keys to the
pruner and then calls the attention that the model was set to (SDPA, flash, eager). A dispatcher with no session to serve
calls the layer as it was. When the last pruner leaves, all of it is gone.

Pruning shortens the sequence in mid-decoder, so from there on each layer is given the rotary embeddings of the survivors
and a mask built anew, by transformers' own mask functions, for what is left. In decoding each layer's mask is built from
what that layer's cache holds.
"""

import copy
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fitprune.anatomy import Anatomy, anatomy, visual_mask
from fitprune.errors import UnsupportedModel
from fitprune.trace import Trace
from fitprune.view import Attention, VisualTokens

if TYPE_CHECKING:
    from fitprune.pruner import Pruner

IMPLEMENTATION = "fitprune"

# The attention call under way in this thread: an `_Observation`, or None.
_thread = threading.local()


@contextmanager
def pruning(model: nn.Module, pruner: "Pruner") -> Iterator[Trace]:
    """Apply `pruner` to `model` inside the context; see `Pruner.__call__`."""
    patch = _Patch.acquire(model)
    session = None
    try:
        session = _Session(patch, pruner)
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


class _Patch:
    """The dispatchers on one model, shared by all sessions on it."""

    _lock = threading.RLock()
    _by_decoder: ClassVar[dict[int, "_Patch"]] = {}

    def __init__(self, parts: Anatomy) -> None:
        self.parts = parts
        self.users = 0
        self.sessions: list[_Session] = []
        self.undo: list[Callable[[], None]] = []

    @classmethod
    def acquire(cls, model: nn.Module) -> "_Patch":
        """The patch on `model`, installed if it is the first."""
        parts = anatomy(model)
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

    def open(self, session: "_Session") -> None:
        with self._lock:
            self.sessions.append(session)

    def close(self, session: "_Session | None") -> None:
        with self._lock:
            if session is not None and session in self.sessions:
                self.sessions.remove(session)

    def session(self) -> "_Session | None":
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
            self.undo.append(_set_attribute(model, "prepare_inputs_for_generation", self._noting_prefill(prepare)))
        hooks = [
            parts.tower.register_forward_pre_hook(self._on_pixels, with_kwargs=True),
            parts.parent.register_forward_pre_hook(self._on_prompt, with_kwargs=True),
            parts.decoder.register_forward_pre_hook(self._on_decoder, with_kwargs=True),
            parts.decoder.register_forward_hook(self._after_decoder, always_call=True),
        ]
        layers: Iterable[Any] = parts.layers
        for index, layer in enumerate(layers):
            hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(_gather_survivors))
            self.undo.append(_set_attribute(layer, "forward", _Dispatcher(self, index, layer, layer.forward)))
            self.undo.append(_set_attribute(layer.self_attn, "config", _observing_config(layer.self_attn.config)))
        self.undo.extend(hook.remove for hook in hooks)

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
                session.local.prompting = bool(kwargs.get("is_first_iteration"))
            return prepare(*args, **kwargs)

        return prepared

    def _on_pixels(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        session = self.session()
        if session is not None:
            session.local.pixels = args[0] if args else kwargs.get("pixel_values")

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
            session.local.forward = session.local.prompt = session.local.pixels = None
            session.local.prompting = False


def _set_attribute(module: nn.Module, name: str, value: Any) -> Callable[[], None]:
    """Set an instance attribute; returns what puts it back, or takes it off where the instance had none."""
    had, before = name in vars(module), vars(module).get(name)
    setattr(module, name, value)
    return (lambda: setattr(module, name, before)) if had else (lambda: delattr(module, name))


class _Dispatcher:
    """Stands in for one decoder layer's forward."""

    def __init__(self, patch: _Patch, index: int, layer: Any, original: Callable[..., Any]) -> None:
        self.patch, self.index, self.layer, self.original = patch, index, layer, original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        session = self.patch.session()
        forward = getattr(session.local, "forward", None) if session is not None else None
        if forward is None:
            return self.original(*args, **kwargs)
        hidden, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), args)
        if args:
            raise UnsupportedModel("decoder layers must be called with keyword arguments to be pruned.")
        return forward.run(self, hidden, kwargs)


@dataclass
class _CacheState:
    """What the runtime knows of one KV cache: which places of each layer are real, and how long the prompt was.

    Attributes:
        valid: per layer (batch, entered) bool, or None where all that entered the layer is real.
        entered: per layer, the prompt tokens that entered it (padding counted).
        seen: tokens of the unpruned sequence so far, padding counted.
        visual: whether the prompt had visual tokens.
    """

    valid: list[torch.Tensor | None]
    entered: list[int]
    seen: int
    visual: bool


class _Session:
    """One pruner on one model in one thread."""

    def __init__(self, patch: _Patch, pruner: "Pruner") -> None:
        self.patch, self.pruner = patch, pruner
        self.thread = threading.get_ident()
        self.trace = Trace()
        self.local = threading.local()
        self.caches: weakref.WeakKeyDictionary[Any, _CacheState] = weakref.WeakKeyDictionary()
        self.observed = frozenset(pruner.observed_layers(len(patch.parts.layers)))

    def begin(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Start a forward of the decoder, called with `kwargs`; returns the arguments to call it with."""
        prompt = getattr(self.local, "prompt", None)
        if prompt is None:
            raise UnsupportedModel("a pruned model must be called as a whole, not through its text decoder alone.")
        visual = visual_mask(self.patch.parts, prompt)
        mask = kwargs.get("attention_mask")
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 2):
            raise UnsupportedModel(
                "pruning needs a 2-D attention mask and a dynamic cache; this call brought a prepared mask "
                "(a static cache, or a mask of the caller's own)."
            )
        # generate() encodes images before the forward, which then brings none; the tower has seen them in either case.
        prompt = {**prompt, "pixel_values": getattr(self.local, "pixels", None)}
        cache = kwargs.get("past_key_values")
        if getattr(cache, "is_compileable", False):
            raise UnsupportedModel(f"a {type(cache).__name__} has one length for all layers; use a dynamic cache to prune.")
        past = int(cache.get_seq_length()) if cache is not None else 0
        embeds = kwargs.get("inputs_embeds")
        length = (embeds if embeds is not None else kwargs["input_ids"]).shape[1]
        if past == 0:
            self._check_window(length)
            self.local.forward = _Prefill(self, visual, mask, prompt)
            return kwargs
        state = self.caches.get(cache)
        if state is None:
            raise UnsupportedModel(
                "this KV cache was filled outside the pruner's context; run the prompt and its continuation inside one."
            )
        # A lone image token without an image is one that the model itself has generated.
        brought = bool(visual.any()) and (length > 1 or prompt["pixel_values"] is not None)
        prompting = length > 1 or getattr(self.local, "prompting", False)
        if brought or (prompting and state.visual):
            raise UnsupportedModel(
                f"{length} more prompt tokens after a cached prefill of {state.seen}: a prompt with an image is pruned in "
                "one prefill only; switch off chunked prefill and assisted decoding."
            )
        self._check_window(state.seen + length)
        if kwargs.get("position_ids") is None:
            # The cache of a pruned layer is shorter than the sequence, so its length would give a wrong position.
            positions = torch.arange(state.seen, state.seen + length, device=visual.device)
            kwargs = {**kwargs, "position_ids": positions[None]}
        self.local.forward = _Decode(self, state, cache, length) if state.visual else None
        state.seen += length
        return kwargs

    def _check_window(self, length: int) -> None:
        config = self.patch.parts.text_config
        window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        sliding = (types is None or "sliding_attention" in types) and getattr(config, "use_sliding_window", True)
        if window is not None and sliding and length > window:
            raise UnsupportedModel(
                f"{length} tokens exceed this model's sliding window of {window}; pruning inside a window is not defined."
            )


class _Prefill:
    """A forward over a whole prompt."""

    def __init__(self, session: _Session, visual: torch.Tensor, mask: torch.Tensor | None, prompt: dict[str, Any]) -> None:
        self.session, self.prompt = session, prompt
        batch, length = visual.shape
        device = visual.device
        real = torch.ones_like(visual) if mask is None else mask.to(device=device, dtype=torch.bool)
        visual = visual & real
        self.valid = None if bool(real.all()) else real
        self.total = visual.sum(1)
        n = int(self.total.max())
        # Stable sort brings each row's visual positions to the front, in order.
        position = (~visual).long().argsort(dim=1, stable=True)[:, :n]
        present = torch.arange(n, device=device)[None] < self.total[:, None]
        self.position = position.masked_fill(~present, -1)
        self.original = torch.arange(n, device=device).expand(batch, n).masked_fill(~present, -1)
        self.first_row = int(position.masked_fill(~present, length).min()) if n else length
        last = self.position.max(1).values if n else torch.full((batch,), length, device=device)
        after = torch.arange(length, device=device)[None] > last[:, None]
        self.text_after = after & real & (self.total > 0)[:, None]
        self.memory: dict[str, Any] = {}
        self.changed = False
        self.mask: Any = None
        self.embeddings: tuple[torch.Tensor, torch.Tensor] | None = None
        self.state: _CacheState | None = None
        session.trace.start(self.total, real.sum(1) - self.total)

    def run(self, at: _Dispatcher, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """One layer: prune before it, run it, prune after its attention where the pruner asks for it."""
        session, trace = self.session, self.session.trace
        self._remember_cache(kwargs.get("past_key_values"))
        if self.embeddings is None:
            self.embeddings, self.mask = kwargs["position_embeddings"], kwargs.get("attention_mask")
        if self.position.shape[1]:
            keep = session.pruner.before_layer(at.index, self._tokens(hidden))
            cut = self._cut(keep) if keep is not None else None
            if cut is not None:
                hidden = self._shorten(hidden, cut)
        entered = (self.position >= 0).sum(1)
        trace.visual_in.append(entered)
        if self.state is not None:
            self.state.valid.append(self.valid)
            self.state.entered.append(hidden.shape[1])
        if self.changed:
            # Position ids with gaps would be taken for packed sequences by flash attention; the embeddings carry them.
            kwargs = {
                **kwargs,
                "attention_mask": self.mask,
                "position_embeddings": self.embeddings,
                "position_ids": None,
            }
        macs = 0
        if at.index in session.observed and self.position.shape[1]:
            output, macs = self._run_observed(at, hidden, kwargs)
        else:
            output = at.original(hidden, **kwargs)
        trace.kept.append(self.original)
        trace.visual_out.append((self.position >= 0).sum(1))
        trace.scoring_macs.append(macs)
        return output

    def _run_observed(self, at: _Dispatcher, hidden: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, int]:
        """The layer in its two halves, so that what is dropped after attention leaves the residual stream there."""
        layer = at.layer
        observation = _Observation(self, at.index, hidden)
        _thread.observation = observation
        try:
            attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **kwargs)
        finally:
            _thread.observation = None
        if observation.cut is not None:
            hidden = self._shorten(hidden, observation.cut)
        hidden = hidden + attended
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden)), observation.macs

    def observe(self, observation: "_Observation", attention: Attention) -> None:
        """Called from inside the layer's attention: ask the pruner, and settle which rows survive."""
        tokens = self._tokens(observation.hidden)
        keep = self.session.pruner.after_attention(observation.layer, tokens, attention)
        observation.macs = attention.macs
        if keep is not None:
            observation.cut = self._cut(keep)

    def _tokens(self, hidden: torch.Tensor) -> VisualTokens:
        return VisualTokens(
            hidden=hidden,
            position=self.position,
            original=self.original,
            total=self.total,
            valid=self.valid,
            text_after=self.text_after,
            first_row=self.first_row,
            memory=self.memory,
            prompt=self.prompt,
        )

    def _cut(self, keep: torch.Tensor) -> "_Cut | None":
        """Which rows survive when of the visual tokens present `keep` (batch, n) stay; None where all do.

        Samples that drop less than others are longer; the others are padded on the left, with rows they dropped.
        """
        present = self.position >= 0
        keep = keep & present
        leaving = present & ~keep
        low, high = (int(count) for count in leaving.sum(1).aminmax())
        if high == 0:
            return None
        length = self.text_after.shape[1]
        stays = torch.ones(len(keep), length + 1, dtype=torch.bool, device=keep.device)
        # Places that do not leave are written to an extra column that is cut off.
        stays = stays.scatter(1, torch.where(leaving, self.position, length), False)[:, :length]
        rows = stays.byte().argsort(dim=1, stable=True)[:, low:]
        if self.valid is None and low == high:
            return _Cut(keep, rows, None)
        real = stays if self.valid is None else stays & self.valid
        return _Cut(keep, rows, real.gather(1, rows))

    def _shorten(self, hidden: torch.Tensor, cut: "_Cut") -> torch.Tensor:
        """Bring hidden states and book-keeping to the shorter sequence of `cut`."""
        hidden = _take(hidden, cut.rows)
        batch, length = cut.rows.shape
        place = torch.zeros(batch, self.text_after.shape[1], dtype=torch.long, device=hidden.device)
        place.scatter_(1, cut.rows, torch.arange(length, device=hidden.device).expand_as(cut.rows))
        n = int(cut.keep.sum(1).max())
        order = (~cut.keep).byte().argsort(dim=1, stable=True)[:, :n]
        present = cut.keep.gather(1, order)
        self.original = self.original.gather(1, order).masked_fill(~present, -1)
        self.position = place.gather(1, self.position.gather(1, order).clamp(min=0)).masked_fill(~present, -1)
        self.first_row = int(self.position.masked_fill(~present, length).min()) if n else length
        self.text_after = self.text_after.gather(1, cut.rows)
        self.valid = cut.real
        assert self.embeddings is not None
        cosine, sine = self.embeddings
        self.embeddings = (_take(cosine, cut.rows, batch), _take(sine, cut.rows, batch))
        self.mask = _mask(self.session.patch.parts, self.valid, batch, length, length, hidden)
        self.changed = True
        return hidden

    def _remember_cache(self, cache: Any) -> None:
        if cache is not None and self.state is None:
            state = _CacheState([], [], int(self.text_after.shape[1]), bool((self.total > 0).any()))
            self.state = self.session.caches[cache] = state


class _Decode:
    """A forward over newly generated tokens, after a pruned prefill."""

    def __init__(self, session: _Session, state: _CacheState, cache: Any, length: int) -> None:
        self.session, self.state, self.length = session, state, length
        # Read before the layers append to it: layer l holds what entered it, and all tokens decoded since.
        self.past = [int(cache.get_seq_length(index)) for index in range(len(state.entered))]
        self.masks: dict[tuple[int, int], Any] = {}

    def run(self, at: _Dispatcher, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        valid, total = self.state.valid[at.index], self.past[at.index] + self.length
        known = (id(valid), total)
        if known not in self.masks:
            if valid is not None:
                valid = nn.functional.pad(valid, (0, total - valid.shape[1]), value=True)
            parts = self.session.patch.parts
            self.masks[known] = _mask(parts, valid, len(hidden), self.length, total, hidden)
        return at.original(hidden, **{**kwargs, "attention_mask": self.masks[known]})


@dataclass(frozen=True)
class _Cut:
    """Which rows of the sequence survive.

    Attributes:
        keep: bool (batch, n): the visual tokens that stay, of those present.
        rows: LongTensor (batch, T'): rows of the old sequence in the new one.
        real: bool (batch, T'): which of them are no padding; None where all are.
    """

    keep: torch.Tensor
    rows: torch.Tensor
    real: torch.Tensor | None


@dataclass
class _Observation:
    """One attention call under observation, and what came of it."""

    prefill: _Prefill
    layer: int
    hidden: torch.Tensor
    macs: int = 0
    cut: "_Cut | None" = None


def _take(values: torch.Tensor, rows: torch.Tensor, batch: int | None = None) -> torch.Tensor:
    """Gather `rows` (batch, T') along the second-last axis of (…, batch, T, d); a batch axis of 1 is expanded."""
    if batch is not None and values.shape[-3] != batch:
        values = values.expand(*values.shape[:-3], batch, *values.shape[-2:])
    index = rows[..., None].expand(*values.shape[:-2], rows.shape[1], values.shape[-1])
    return values.gather(-2, index)


def _mask(
    parts: Anatomy, valid: torch.Tensor | None, batch: int, queries: int, keys: int, hidden: torch.Tensor
) -> torch.Tensor | None:
    """The causal mask of the last `queries` of `keys` tokens, in the form that the model's attention takes."""
    config = parts.decoder.config
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=batch,
        q_length=queries,
        kv_length=keys,
        q_offset=keys - queries,
        kv_offset=0,
        mask_function=causal_mask_function,
        attention_mask=valid,
        allow_is_causal_skip=True,
        dtype=hidden.dtype,
        config=config,
        device=hidden.device,
    )


def _observing_config(config: Any) -> Any:
    """A shallow copy of an attention module's configuration that routes through `observed_attention`."""
    view = copy.copy(config)
    view._attn_implementation = IMPLEMENTATION
    view._observed_config = config
    return view


class _Unobserved:
    """An attention module as it was: its own attributes, with the configuration that it had."""

    def __init__(self, module: nn.Module, config: Any) -> None:
        self.module, self.config = module, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def observed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention function of a patched module: the one it was set to, after showing queries and keys to the pruner."""
    config = module.config._observed_config
    observation = getattr(_thread, "observation", None)
    if observation is not None:
        scaling = kwargs.get("scaling") or module.scaling
        observation.prefill.observe(observation, Attention(query, key, scaling))
    implementation = config._attn_implementation
    eager = sys.modules[type(module).__module__].eager_attention_forward
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
    return attend(_Unobserved(module, config), query, key, value, attention_mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, observed_attention)


def _gather_survivors(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    """Before the output projection: only rows that survive go on."""
    observation = getattr(_thread, "observation", None)
    if observation is None or observation.cut is None:
        return None
    return (_take(args[0], observation.cut.rows),)
