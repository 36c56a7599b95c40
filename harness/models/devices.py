"""Where a model goes, and in which precision."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fitprune.errors import FitPruneError

if TYPE_CHECKING:
    import torch

AUTO = "auto"
DEVICE_NAMES = re.compile(r"cpu|auto|cuda(?::(\d{1,9}))?")


# Where Linux shows a GPU: NVIDIA's driver, its boards of one chip, under Windows, AMD's.
_DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")


def cuda_devices() -> int:
    """How many CUDA devices there are. torch, which takes seconds to import, is not asked where no driver is."""
    if "torch" not in sys.modules and sys.platform == "linux" and not any(Path(name).exists() for name in _DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def check_device(device: str | None) -> None:
    """Raise FitPruneError, in one line, unless the device is None or auto, or one that is on this machine. Takes no memory."""
    if device is None:
        return
    match = DEVICE_NAMES.fullmatch(device)
    if match is None:
        raise FitPruneError(f"unknown device '{device}'; write cpu, cuda, cuda:N or auto")
    if not device.startswith("cuda"):
        return
    count = cuda_devices()
    if not count:
        raise FitPruneError(f"device '{device}' is not here: this machine has no CUDA device; take cpu")
    if int(match[1] or 0) >= count:
        last = f"to cuda:{count - 1}" if count > 1 else "alone"
        raise FitPruneError(f"device '{device}' is not here: this machine has cuda:0 {last}; take one of these, or cpu")


def choose_device(device: str | None, weights: int = 0) -> str:
    """The device for a model of so many bytes: "cpu", "cuda:N", or "auto" for several.

    Args:
        device: as `load_model` takes it.

    Raises FitPruneError for an unknown device, one that is not there, and one with too little free memory.
    """
    import torch

    check_device(device)
    if device is None:
        if not torch.cuda.is_available():
            return "cpu"
        return "cuda:0" if weights <= torch.cuda.mem_get_info(0)[0] else AUTO
    if device == AUTO:
        return AUTO
    if device.startswith("cuda"):
        index = torch.device(device).index or 0
        free = torch.cuda.mem_get_info(index)[0]
        if weights > free:
            raise FitPruneError(
                f"the weights take {weights / 1e9:.1f} GB, and cuda:{index} has {free / 1e9:.1f} GB free; use --device auto"
            )
        return f"cuda:{index}"
    return device


def placement(device: str) -> "str | dict[str, str] | None":
    """transformers' `device_map` for a device: None on the CPU, where weights are mapped from the files."""
    if device == "cpu":
        return None
    return AUTO if device == AUTO else {"": device}


def choose_dtype(dtype: "torch.dtype | str | None", device: str | None) -> "torch.dtype":
    """The dtype asked for, or the default of `load_model`. Raises FitPruneError for one that cannot hold weights."""
    import torch

    if dtype is None:
        on_gpu = torch.cuda.is_available() and (device is None or device == AUTO or device.startswith("cuda"))
        if not on_gpu:
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise FitPruneError(f"unknown dtype '{dtype}'; write float32, bfloat16 or float16")
    return found
