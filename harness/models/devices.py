"""Where a model goes, and in which precision."""

from typing import TYPE_CHECKING

from fitprune.errors import FitPruneError

if TYPE_CHECKING:
    import torch

AUTO = "auto"


def choose_device(device: str | None, weights: int = 0) -> str:
    """The device for a model of so many bytes: "cpu", "cuda:N", or "auto" for several.

    Args:
        device: as `load_model` takes it.

    Raises FitPruneError for an unknown device, one that is not there, and one with too little free memory.
    """
    import torch

    if device is None:
        if not torch.cuda.is_available():
            return "cpu"
        return "cuda:0" if weights <= torch.cuda.mem_get_info(0)[0] else AUTO
    if device == AUTO:
        return AUTO
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise FitPruneError(f"unknown device '{device}'; write cpu, cuda:0 or auto") from None
    if parsed.type == "cuda":
        count, index = torch.cuda.device_count(), parsed.index or 0
        if index >= count:
            raise FitPruneError(f"device '{device}' is not here: this machine has {count} CUDA devices; use --device cpu")
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
