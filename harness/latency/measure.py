"""How fast is a prompt, and how much memory does it take? Prefill, decode, peak memory and KV cache, dense or pruned.

A millisecond says something about a machine; a ratio to the dense model, measured in turn with it in the same run, says
something about a pruner: report `compare`, not two calls of `measure`.

- Prefill is one forward over the prompts, vision tower and projector included, into an empty cache, with `lm_head` on
  the last row only.
- Decode goes on greedily from that cache for a fixed number of tokens; an end-of-sequence token does not stop it.
- Timed with CUDA events, synchronised, on CUDA; with `time.perf_counter` on the CPU. After warm-up and an untimed run whose
  memory is measured; the median of the repeats.
- Entering and leaving the pruner's context is not timed.
- Energy is what the GPU's own counter says, of separate runs over a window of seconds, idle power included; only if asked.

What the figures mean, and how to take them: docs/latency.md.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fitprune import FitPruneError, Pruner
from harness.latency.nvml import Watch, watched
from harness.latency.subject import Subject, Times, device_name

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
    """The GPU's name, or "cpu"."""
    threads: int
    energy_j: float | None = None
    """Joules of one answer: a prompt of the batch and its new tokens."""
    notes: tuple[str, ...] = ()
    """What disturbed the measurement, and why something is not known."""


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
    energy_ratio: float | None = None

    def latency_ms(self) -> dict[str, Any]:
        """The times and ratios as a flat JSON-able dict, for a result's `latency_ms`; `on` is the GPU's name, or "cpu"."""
        return {
            "on": self.pruned.device,
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
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """Those of both, each once."""
        return list(dict.fromkeys([*self.dense.notes, *self.pruned.notes]))


def measure(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    pruner: Pruner | None = None,
    new_tokens: int = 8,
    repeats: int = 10,
    warmup: int = 3,
    energy: bool = False,
) -> Latency:
    """Time `model` on the batch `inputs` (processor output, on the model's device), under `pruner` if one is given.

    Raises FitPruneError for counts below 1 (`warmup` below 0) and for a device other than CPU and CUDA.
    """
    _check(new_tokens, repeats, warmup)
    subject = Subject(model, inputs, pruner, new_tokens)
    with watched(subject.devices) as (gpus, notes):
        for _ in range(warmup):
            subject.run()
        memory = _memory(subject)
        subject.watch = Watch(gpus, notes)
        return _latency(subject, memory, [subject.run() for _ in range(repeats)], energy)


def compare(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    pruner: Pruner,
    new_tokens: int = 8,
    repeats: int = 10,
    warmup: int = 3,
    energy: bool = False,
    known: Latency | None = None,
) -> Comparison:
    """Time the dense and the pruned model in turn (dense, pruned, dense, …); arguments and errors as in `measure`.

    `known` is the dense model's from an earlier call with the same model and inputs: its memory is not measured again.
    """
    _check(new_tokens, repeats, warmup)
    dense, pruned = (Subject(model, inputs, method, new_tokens) for method in (None, pruner))
    with watched(dense.devices) as (gpus, notes):
        for _ in range(warmup):
            dense.run()
            pruned.run()
        memory = _memory(dense, known), _memory(pruned)
        for subject in (dense, pruned):
            subject.watch = Watch(gpus, notes)
        pairs = [(dense.run(), pruned.run()) for _ in range(repeats)]
        before = _latency(dense, memory[0], [pair[0] for pair in pairs], energy)
        after = _latency(pruned, memory[1], [pair[1] for pair in pairs], energy)

    def ratio(read: Callable[[Times], float]) -> tuple[float, Range]:
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
        energy_ratio=after.energy_j / before.energy_j if after.energy_j is not None and before.energy_j else None,
    )


def _memory(subject: Subject, known: Latency | None = None) -> dict[str, Any]:
    """The fields of a `Latency` on memory, from one untimed run, or as they are `known`."""
    if known is not None:
        return {name: getattr(known, name) for name in ("working_mb", "memory_mb", "kv_bytes")}
    working, resident, cache = subject.memory()
    return {"working_mb": working / 1e6, "memory_mb": (working + resident) / 1e6, "kv_bytes": cache}


def _latency(subject: Subject, memory: dict[str, Any], repeats: Sequence[Times], energy: bool) -> Latency:
    """The summary of timed repeats, with energy from as many more as it takes."""
    prefill, prefill_iqr = _summary([times.prefill for times in repeats])
    total, total_iqr = _summary([times.total for times in repeats])
    decode, decode_iqr = _summary([times.decode for times in repeats]) if subject.new_tokens > 1 else (None, None)
    joules = subject.joules() if energy else None
    return Latency(
        prefill_ms=prefill,
        prefill_iqr_ms=prefill_iqr,
        decode_ms_per_token=decode,
        decode_iqr_ms=decode_iqr,
        end_to_end_ms=total,
        end_to_end_iqr_ms=total_iqr,
        **memory,
        new_tokens=subject.new_tokens,
        repeats=len(repeats),
        batch=len(subject.inputs["input_ids"]),
        device=device_name(subject.device),
        threads=torch.get_num_threads(),
        energy_j=joules,
        notes=subject.watch.notes(),
    )


def _summary(values: list[float]) -> tuple[float, Range]:
    """Median, and first and third quartile; of one value, that value."""
    if len(values) == 1:
        return values[0], (values[0], values[0])
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return median, (first, third)


def _check(new_tokens: int, repeats: int, warmup: int) -> None:
    for name, value, least in (("new_tokens", new_tokens, 1), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < least:
            raise FitPruneError(f"{name} must be at least {least}, got {value}")
