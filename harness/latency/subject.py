"""A model and a batch of prompts that can be run again and again: timed by part, watched, its memory measured."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from fitprune import FitPruneError, Pruner
from fitprune.models.releases import CACHE_ARGUMENT
from harness.cost.memory import distinct_bytes, kv_bytes, peak_cpu_bytes, peak_cuda_bytes
from harness.latency.nvml import Watch


@dataclass(frozen=True)
class Times:
    """Milliseconds of one repeat; `decode` is of one step."""

    prefill: float
    decode: float
    total: float


@dataclass(frozen=True)
class State:
    """What a forward leaves to the next one.

    Attributes:
        token: (batch, 1), the new token.
        position: where it stands: (batch, 1), or (4, batch, 1) where positions have axes: text, then time, height, width.
        mask: (batch, T) of the unpruned prompt and the tokens after it, this one not yet among them.
        cache: filled up to the token before it.
    """

    token: torch.Tensor
    position: torch.Tensor
    mask: torch.Tensor
    cache: DynamicCache


class Subject:
    """A model and a batch of prompts, dense or under a pruner."""

    def __init__(
        self, model: Any, inputs: Mapping[str, torch.Tensor], pruner: Pruner | None, new_tokens: int, watch: Watch | None = None
    ) -> None:
        self.model, self.inputs, self.pruner, self.new_tokens = model, dict(inputs), pruner, new_tokens
        self.watch = watch or Watch()
        self.device = inputs["input_ids"].device
        if self.device.type not in ("cpu", "cuda"):
            raise FitPruneError(f"latency is measured on CPU or CUDA, got device '{self.device}'")
        self.inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))

    @property
    def devices(self) -> set[torch.device]:
        """Where the model's weights and the prompts are."""
        return {self.device, *(weight.device for weight in self.model.parameters())}

    def context(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.pruner is None else self.pruner(self.model)

    def run(self) -> Times:
        """One prefill and `new_tokens` - 1 decode steps, timed."""
        with torch.inference_mode(), self.context():
            clock = _CudaClock(self.device) if self.device.type == "cuda" else _WallClock()
            clock.mark()
            state = self.prefill()
            clock.mark()
            for _ in range(self.new_tokens - 1):
                state = self.step(state)
            clock.mark()
            # On CUDA the work is queued, its end marked: looking now delays nothing, and sees the GPU at work.
            self.watch.look()
            first, second = clock.intervals()
        return Times(prefill=first, decode=second / max(self.new_tokens - 1, 1), total=first + second)

    def prefill(self) -> State:
        """The prompts, into an empty cache, called as `generate` does it: positions do not count padding."""
        cache, mask = DynamicCache(), self.inputs["attention_mask"]
        options: dict[str, Any] = {CACHE_ARGUMENT: cache, "use_cache": True, "logits_to_keep": 1}
        position = mask.sum(1, keepdim=True)
        if "image_grid_thw" in self.inputs and "mm_token_type_ids" in self.inputs:
            # Positions with axes are the model's own work. An image takes fewer of them than tokens; by how many, it keeps.
            output = self.model(**self.inputs, **options)
            position = torch.stack([position, *[position + self.model.model.rope_deltas] * 3])
        else:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            output = self.model(**self.inputs, **options, position_ids=positions)
        return State(output.logits[:, -1:].argmax(-1), position, mask, cache)

    def step(self, state: State) -> State:
        """One greedy decode step, called as `generate` does it: mask and position of the unpruned sequence."""
        mask = torch.cat([state.mask, state.mask.new_ones(len(state.mask), 1)], 1)
        output = self.model(
            input_ids=state.token,
            attention_mask=mask,
            position_ids=state.position,
            use_cache=True,
            logits_to_keep=1,
            **{CACHE_ARGUMENT: state.cache},
        )
        return State(output.logits[:, -1:].argmax(-1), state.position + 1, mask, state.cache)

    def answer(self) -> State:
        """One prefill and `new_tokens` - 1 decode steps, all done when it returns; to be called inside the context."""
        state = self.prefill()
        for _ in range(self.new_tokens - 1):
            state = self.step(state)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return state

    def joules(self) -> float | None:
        """Energy of one answer to one prompt of the batch; None, with a note in `watch`, where it is not known."""
        with torch.inference_mode(), self.context():
            batch = self.watch.joules_per_call(self.answer)
        return None if batch is None else batch / len(self.inputs["input_ids"])

    def memory(self) -> tuple[int, int, int]:
        """Bytes: peak beyond what was there before, what was there before, and the final KV cache."""
        sizes: list[int] = []

        def work() -> None:
            sizes.append(kv_bytes(self.answer().cache))

        with torch.inference_mode(), self.context():
            if self.device.type == "cuda":
                resident = torch.cuda.memory_allocated(self.device)
                working = peak_cuda_bytes(work, self.device)
            else:
                resident = distinct_bytes([*self.model.parameters(), *self.model.buffers(), *self.inputs.values()])
                working = peak_cpu_bytes(work)
        return working, resident, sizes[0]


class _WallClock:
    """Marks in wall-clock time, for work that is done when the call returns."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def mark(self) -> None:
        self.marks.append(time.perf_counter())

    def intervals(self) -> list[float]:
        """Milliseconds between neighbouring marks."""
        return [1e3 * (end - start) for start, end in zip(self.marks, self.marks[1:], strict=False)]


class _CudaClock:
    """Marks in the stream of a CUDA device, which is idle at the first and waited for after the last."""

    def __init__(self, device: torch.device) -> None:
        self.stream, self.marks = torch.cuda.current_stream(device), list[torch.cuda.Event]()
        torch.cuda.synchronize(device)

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self.stream)
        self.marks.append(event)

    def intervals(self) -> list[float]:
        """Milliseconds between neighbouring marks."""
        self.marks[-1].synchronize()
        return [start.elapsed_time(end) for start, end in zip(self.marks, self.marks[1:], strict=False)]


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
