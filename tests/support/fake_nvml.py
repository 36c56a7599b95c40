"""A module with the calls of `pynvml` (nvidia-ml-py) that the harness makes, over GPUs of a test's making."""

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """As in `pynvml`: made of a number."""

    def __init__(self, value: int) -> None:
        super().__init__({3: "Not Supported", 6: "Not Found", 12: "NVML Shared Library Not Found"}.get(value, str(value)))
        self.value = value


class NVMLLibraryMismatchError(Exception):
    """As in `pynvml`: no kind of NVMLError."""


class FakeNvml:
    """What a test sets:

    gpus: UUID with its prefix → a namespace with any of `energy` (a function), `event_reasons`, `throttle_reasons`, `pids`,
        `mig` and `pci`; what is left out is not supported. `broken`: raised by nvmlInit. `inits`: how often NVML is in use.
    """

    NVMLError, NVMLLibraryMismatchError = NVMLError, NVMLLibraryMismatchError
    NVML_ERROR_NOT_FOUND = 6

    def __init__(self, **gpus: Any) -> None:
        self.gpus = {uuid.replace("_", "-"): SimpleNamespace(**gpu) for uuid, gpu in gpus.items()}
        self.broken: Exception | None = None
        self.inits = 0

    def nvmlInit(self) -> None:
        if self.broken is not None:
            raise self.broken
        self.inits += 1

    def nvmlShutdown(self) -> None:
        self.inits -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        if uuid not in self.gpus:
            raise NVMLError(6)
        return self.gpus[uuid]

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> Any:
        for gpu in self.gpus.values():
            if getattr(gpu, "pci", None) == address:
                return gpu
        raise NVMLError(6)

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        return [supported(handle, "mig"), 0]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        return supported(handle, "energy")()

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        return supported(handle, "event_reasons")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        return supported(handle, "throttle_reasons")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        if not hasattr(handle, "pids"):
            raise NVMLLibraryMismatchError("versions differ")
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in handle.pids]


def supported(handle: Any, name: str) -> Any:
    """What the GPU has; NVML's error for what it has not."""
    if not hasattr(handle, name):
        raise NVMLError(3)
    return getattr(handle, name)
