"""How fast is a prompt, and how much memory does it take? Prefill, decode, peak memory and KV cache, dense or pruned.

A millisecond says something about a machine; a ratio to the dense model, measured in turn with it in the same run, says
something about a pruner: report `compare`, not two calls of `measure`.

- Prefill is one forward over the prompts, vision tower and projector included, into an empty cache, with `lm_head` on
  the last row only.
- Decode goes on greedily from that cache for a fixed number of tokens; an end-of-sequence token does not stop it.
- Timed with CUDA events, synchronised, on CUDA; with `time.perf_counter` on the CPU. After warm-up; the median of the
  repeats.
- Entering and leaving the pruner's context is not timed.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from fitprune import FitPruneError, Pruner
from harness.memory import distinct_bytes, kv_bytes, peak_cpu_bytes, peak_cuda_bytes

Range = tuple[float, float]
"""First and third quartile."""


@dataclass(frozen=True)
class Latency:
    """Times in milliseconds for the whole batch, median over the repeats, with quartiles; memory in 10^6 bytes."""

    prefill_ms: float
    prefill_iqr_ms: Range
    decode_ms_per_token: float | None
    """One decode step of the whole batch; None when `new_tokens` is 1."""
    decode_iqr_ms: Range | None
    end_to_end_ms: float
    """Prefill and all decode steps."""
    end_to_end_iqr_ms: Range
    working_mb: float
    """Peak tensor memory beyond what was allocated before the prefill: activations and KV cache."""
    memory_mb: float
    """`working_mb` and what was there before: on CUDA all that is allocated, on the CPU weights, buffers and inputs."""
    kv_bytes: int
    """Keys and values in the cache after the last step, as allocated, padding included."""
    new_tokens: int
    repeats: int
    batch: int
    device: str
    threads: int


@dataclass(frozen=True)
class Comparison:
    """A pruned model against the dense one, measured in turn. Ratios are pruned over dense: below 1 is better.

    A time ratio is the median of the ratios of neighbouring repeats, so that a drift of the machine's speed cancels.
    """

    pruned: Latency
    dense: Latency
    prefill_ratio: float
    prefill_ratio_iqr: Range
    decode_ratio: float | None
    decode_ratio_iqr: Range | None
    end_to_end_ratio: float
    end_to_end_ratio_iqr: Range
    working_memory_ratio: float
    kv_ratio: float

    def latency_ms(self) -> dict[str, float | None]:
        """The times and ratios as a flat JSON-able dict, for a result's `latency_ms`."""
        return {
            "prefill": self.pruned.prefill_ms,
            "decode_per_token": self.pruned.decode_ms_per_token,
            "end_to_end": self.pruned.end_to_end_ms,
            "dense_prefill": self.dense.prefill_ms,
            "dense_decode_per_token": self.dense.decode_ms_per_token,
            "dense_end_to_end": self.dense.end_to_end_ms,
            "prefill_ratio": self.prefill_ratio,
            "prefill_ratio_q1": self.prefill_ratio_iqr[0],
            "prefill_ratio_q3": self.prefill_ratio_iqr[1],
            "decode_ratio": self.decode_ratio,
            "end_to_end_ratio": self.end_to_end_ratio,
        }


def measure(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    pruner: Pruner | None = None,
    new_tokens: int = 8,
    repeats: int = 10,
    warmup: int = 3,
) -> Latency:
    """Time `model` on the batch `inputs` (processor output, on the model's device), under `pruner` if one is given.

    Raises FitPruneError for counts below 1 (`warmup` below 0) and for a device other than CPU and CUDA.
    """
    subject = _Subject(model, inputs, pruner, new_tokens)
    _check(new_tokens, repeats, warmup)
    for _ in range(warmup):
        subject.run()
    return subject.latency([subject.run() for _ in range(repeats)])


def compare(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    pruner: Pruner,
    new_tokens: int = 8,
    repeats: int = 10,
    warmup: int = 3,
) -> Comparison:
    """Time the dense and the pruned model in turn (dense, pruned, dense, …); arguments and errors as in `measure`."""
    _check(new_tokens, repeats, warmup)
    dense, pruned = (_Subject(model, inputs, method, new_tokens) for method in (None, pruner))
    for _ in range(warmup):
        dense.run()
        pruned.run()
    pairs = [(dense.run(), pruned.run()) for _ in range(repeats)]
    before, after = dense.latency([pair[0] for pair in pairs]), pruned.latency([pair[1] for pair in pairs])

    def ratio(read: Callable[[_Times], float]) -> tuple[float, Range]:
        return _summary([read(second) / read(first) for first, second in pairs])

    prefill, prefill_iqr = ratio(lambda times: times.prefill)
    end_to_end, end_to_end_iqr = ratio(lambda times: times.total)
    decode, decode_iqr = ratio(lambda times: times.decode) if new_tokens > 1 else (None, None)
    return Comparison(
        pruned=after,
        dense=before,
        prefill_ratio=prefill,
        prefill_ratio_iqr=prefill_iqr,
        decode_ratio=decode,
        decode_ratio_iqr=decode_iqr,
        end_to_end_ratio=end_to_end,
        end_to_end_ratio_iqr=end_to_end_iqr,
        working_memory_ratio=after.working_mb / before.working_mb,
        kv_ratio=after.kv_bytes / before.kv_bytes,
    )


@dataclass(frozen=True)
class _Times:
    """Milliseconds of one repeat."""

    prefill: float
    decode: float
    total: float


class _Subject:
    """A model and a prompt batch, dense or pruned, that can be run again and again."""

    def __init__(self, model: Any, inputs: Mapping[str, torch.Tensor], pruner: Pruner | None, new_tokens: int) -> None:
        self.model, self.inputs, self.pruner, self.new_tokens = model, dict(inputs), pruner, new_tokens
        self.device = inputs["input_ids"].device
        if self.device.type not in ("cpu", "cuda"):
            raise FitPruneError(f"latency is measured on CPU or CUDA, got device '{self.device}'")
        self.inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))

    def context(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.pruner is None else self.pruner(self.model)

    def run(self) -> _Times:
        """One prefill and `new_tokens` - 1 decode steps, timed."""
        with torch.inference_mode(), self.context():
            clock = _CudaClock(self.device) if self.device.type == "cuda" else _WallClock()
            clock.mark()
            state = self.prefill()
            clock.mark()
            for _ in range(self.new_tokens - 1):
                state = self.step(*state)
            clock.mark()
            first, second = clock.intervals()
        return _Times(prefill=first, decode=second / max(self.new_tokens - 1, 1), total=first + second)

    def prefill(self) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """Returns the first new token (batch, 1), the attention mask of the unpruned prompt and the filled cache."""
        cache = DynamicCache()
        output = self.model(**self.inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1:].argmax(-1), self.inputs["attention_mask"], cache

    def step(
        self, token: torch.Tensor, mask: torch.Tensor, cache: DynamicCache
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """One greedy decode step, called as `generate` does it: mask and position of the unpruned sequence."""
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        position = mask.sum(1, keepdim=True) - 1
        output = self.model(
            input_ids=token,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1:].argmax(-1), mask, cache

    def latency(self, repeats: list[_Times]) -> Latency:
        """The summary of timed repeats, with memory from one more, untimed run."""
        prefill, prefill_iqr = _summary([times.prefill for times in repeats])
        total, total_iqr = _summary([times.total for times in repeats])
        decode, decode_iqr = _summary([times.decode for times in repeats]) if self.new_tokens > 1 else (None, None)
        working, resident, kv_bytes = self.memory()
        return Latency(
            prefill_ms=prefill,
            prefill_iqr_ms=prefill_iqr,
            decode_ms_per_token=decode,
            decode_iqr_ms=decode_iqr,
            end_to_end_ms=total,
            end_to_end_iqr_ms=total_iqr,
            working_mb=working / 1e6,
            memory_mb=(working + resident) / 1e6,
            kv_bytes=kv_bytes,
            new_tokens=self.new_tokens,
            repeats=len(repeats),
            batch=len(self.inputs["input_ids"]),
            device=_device_name(self.device),
            threads=torch.get_num_threads(),
        )

    def memory(self) -> tuple[int, int, int]:
        """Bytes: peak beyond what was there before, what was there before, and the final KV cache."""
        sizes: list[int] = []

        def work() -> None:
            state = self.prefill()
            for _ in range(self.new_tokens - 1):
                state = self.step(*state)
            sizes.append(kv_bytes(state[2]))

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


def _summary(values: list[float]) -> tuple[float, Range]:
    """Median, and first and third quartile; of one value, that value."""
    if len(values) == 1:
        return values[0], (values[0], values[0])
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return median, (first, third)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _check(new_tokens: int, repeats: int, warmup: int) -> None:
    for name, value, least in (("new_tokens", new_tokens, 1), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < least:
            raise FitPruneError(f"{name} must be at least {least}, got {value}")
