"""What happens to NVIDIA GPUs while something is timed on them: energy, slowdowns, other processes.

Read through NVML by `pynvml`, of the package nvidia-ml-py (the extra `gpu`). No timing needs it: what NVML does not tell is
None, and a note says why.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

# Bits of NVML's clocks event reasons (nvml.h) under which a GPU runs slower than it was set to.
SLOWDOWNS = {
    0x04: "its power limit",
    0x08: "a hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "a power brake",
}

# The counter of millijoules steps every 10-100 ms, so that the two ends of this window err by a tenth of it at most.
WINDOW_S = 2.0
LIMIT_S = 10.0


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        nvml: the module `pynvml`, initialised.
        handle: what it calls the GPU.
        name: what torch calls it, "cuda:0".
    """

    nvml: Any
    handle: Any
    name: str

    def energy_mj(self) -> int | None:
        """Millijoules since the driver was loaded, idle times included.

        None where they are not counted: before Volta, and on a GPU in MIG mode, whose counter is that of all its slices.
        """
        if (self._ask("nvmlDeviceGetMigMode") or [0])[0]:
            return None
        return self._ask("nvmlDeviceGetTotalEnergyConsumption")

    def slowdowns(self) -> list[str]:
        """Why the clocks are lower than they were set to, at this moment; empty where they are not, or nothing is known."""
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # drivers before 535 have it under the older name alone
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return [name for bit, name in SLOWDOWNS.items() if (reasons or 0) & bit]

    def others(self) -> int | None:
        """How many other processes compute on the GPU; None where processes are hidden.

        This process does, so that one of those listed is its own, in a container maybe under another number.
        """
        listed = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if not listed:
            return None
        processes = {process.pid for process in listed}
        return len(processes - {os.getpid()}) if os.getpid() in processes else len(processes) - 1

    def _ask(self, function: str) -> Any:
        """The answer of an NVML function about the GPU; None where the GPU, the driver or the module does not know it."""
        try:
            return getattr(self.nvml, function)(self.handle)
        except (self.nvml.NVMLError, self.nvml.NVMLLibraryMismatchError):
            return None


class Watch:
    """Looks at GPUs again and again during a measurement, and remembers what disturbs it."""

    def __init__(self, gpus: Sequence[Gpu] = (), notes: Iterable[str] = ()) -> None:
        self.gpus = list(gpus)
        self._notes = list(notes)
        self._looks = 0
        self._slow: Counter[tuple[str, str]] = Counter()
        self._others: dict[str, int] = {}

    def look(self) -> None:
        """To be called while the GPUs work: idle ones are not slowed down."""
        self._looks += 1
        for gpu in self.gpus:
            self._slow.update((gpu.name, reason) for reason in gpu.slowdowns())
            self._others[gpu.name] = max(self._others.get(gpu.name, 0), gpu.others() or 0)

    def joules_per_call(self, call: Callable[[], Any]) -> float | None:
        """Energy of all GPUs per call of `call`, which returns when its work is done, called until the counters have moved.

        The GPUs' idle power is part of it. None, with a note, where it cannot be known.
        """
        before, started, calls = self._energy_mj(), time.perf_counter(), 0
        if before is None:
            self._notes.append("energy is not known: no counter of a whole NVIDIA GPU can be read")
            return None
        while True:
            call()
            calls += 1
            elapsed = time.perf_counter() - started
            if elapsed < WINDOW_S:
                continue
            after = self._energy_mj()
            if after is not None and after > before:
                return (after - before) / 1e3 / calls
            if after is None or elapsed >= LIMIT_S:
                self._notes.append(f"energy is not known: the counter did not move in {elapsed:.0f} s")
                return None

    def _energy_mj(self) -> int | None:
        """Of all GPUs together; None where one of them does not count."""
        read = [gpu.energy_mj() for gpu in self.gpus]
        known = [value for value in read if value is not None]
        return sum(known) if read and len(known) == len(read) else None

    def notes(self) -> tuple[str, ...]:
        """One line for each thing that a reader of the figures must know."""
        slow = (
            f"{name} was slowed down by {reason} in {count} of {self._looks} repeats"
            for (name, reason), count in sorted(self._slow.items())
        )
        others = (
            f"{name} was shared with {count} other process{'es' if count > 1 else ''}"
            for name, count in sorted(self._others.items())
            if count
        )
        return (*self._notes, *slow, *others)


@contextmanager
def watched(devices: Iterable[torch.device]) -> Iterator[tuple[list[Gpu], list[str]]]:
    """The CUDA devices among `devices` as NVML's GPUs, and a note where they cannot be seen; NVML is let go of on exit."""
    cuda = sorted({device for device in devices if device.type == "cuda"}, key=str)
    if not cuda:
        yield [], []
        return
    try:
        import pynvml
    except ImportError:
        yield [], ["slowdowns and other processes on the GPU are not seen: pip install 'fitprune-bench[gpu]'"]
        return
    errors = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError)
    try:
        pynvml.nvmlInit()
    except errors as error:
        yield [], [f"slowdowns and other processes on the GPU are not seen: NVML says '{error}'"]
        return
    try:
        gpus, notes = [], []
        for device in cuda:
            try:
                handle = find_handle(pynvml, torch.cuda.get_device_properties(device))
            except errors as error:
                notes.append(f"slowdowns and other processes on {device} are not seen: NVML says '{error}'")
            else:
                gpus.append(Gpu(pynvml, handle, str(device)))
        yield gpus, notes
    finally:
        with suppress(*errors):
            pynvml.nvmlShutdown()


def find_handle(nvml: Any, properties: Any) -> Any:
    """NVML's handle of the GPU, or of the MIG slice, with torch's device `properties`.

    By UUID, and by PCI address where NVML has no such UUID; never by number, since torch numbers what CUDA_VISIBLE_DEVICES and
    CUDA_DEVICE_ORDER leave, NVML all there is. Raises NVMLError where neither is known.
    """
    for kind in ("GPU", "MIG"):
        with suppress(nvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{properties.uuid}")
    domain, bus, device = (getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device"))
    if domain is None or bus is None or device is None:  # of older versions of torch
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_FOUND)
    return nvml.nvmlDeviceGetHandleByPciBusId(f"{domain:08X}:{bus:02X}:{device:02X}.0")
