"""How much memory does a piece of work take? Peak tensor memory on CUDA and on the CPU, and the size of a KV cache."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def kv_bytes(cache: Any) -> int:
    """Bytes of keys and values in a transformers cache, over all layers."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.keys is not None)


def distinct_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the tensors, those that share their memory (tied weights) counted once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def peak_cuda_bytes(work: Callable[[], None], device: torch.device) -> int:
    """Peak of the memory allocated on `device` during `work`, beyond what was allocated before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def peak_cpu_bytes(work: Callable[[], None]) -> int:
    """Peak of the memory that torch's CPU allocator hands out during `work`, beyond what was allocated before.

    Read from the allocation records of torch.profiler: every tensor and workspace, exact and repeatable, unlike the
    resident set size. What MKL or oneDNN allocate for themselves is not in it.
    """
    # torch's profiler writes two lines to stderr for every use, below this level.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    records = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for record in sorted(records, key=lambda event: event.start_ns()):
        now += record.nbytes()
        peak = max(peak, now)
    return peak
