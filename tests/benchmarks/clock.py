"""`seconds`: how long a piece of work takes, until the device has done it."""

import time
from collections.abc import Callable

import torch

Work = Callable[[], object]


def seconds(work: Work, device: torch.device) -> float:
    """Of wall clock; on a GPU from an idle device to an idle device. On the CPU of processor time where one thread does the
    work, so that other processes do not count."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    alone = device.type != "cuda" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start
