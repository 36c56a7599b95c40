"""`setting`: what figures are of. Those of another card, driver, version, precision or source are not reused."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from fitprune import FitPruneError
from harness.latency.subject import device_name
from harness.models.devices import choose_device, choose_dtype
from harness.results.sources import folder_digest

ROOT = Path(__file__).parents[3]
MEASURED = ("fitprune", "baselines", "harness", "tests/benchmarks", "tests/reference", "tests/support")
CPU = "cpu"


def device_of(name: str | None, toy: bool) -> torch.device:
    """The device that is asked for, else the first GPU, else the CPU.

    Raises FitPruneError for a device that is not here, and for full sizes on a CPU.
    """
    chosen = torch.device(choose_device(name or ("cuda:0" if torch.cuda.is_available() else CPU)))
    if chosen.type == CPU and not toy:
        here = "" if torch.cuda.is_available() else ", and this machine has no CUDA device"
        raise FitPruneError(f"the figures are of a GPU{here}; --toy measures small sizes on a CPU")
    return chosen


def setting(chosen: torch.device, dtype: str | None, attention: str, toy: bool) -> dict[str, Any]:
    """As JSON."""
    return {
        "card": device_name(chosen),
        "driver": driver() if chosen.type == "cuda" else "",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": str(choose_dtype(dtype, str(chosen))).removeprefix("torch."),
        "attention": attention,
        "toy": toy,
        "sources": hashlib.sha256(" ".join(folder_digest(ROOT / folder) for folder in MEASURED).encode()).hexdigest()[:12],
    }


def driver() -> str:
    """The driver's version by NVML; without nvidia-ml-py, the version of CUDA that it supports."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            found = pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # of whatever NVML says: a version is no reason to measure nothing
        version = torch._C._cuda_getDriverVersion()
        return f"for CUDA {version // 1000}.{version % 1000 // 10}"
    return found.decode() if isinstance(found, bytes) else found


def told(found: Mapping[str, Any]) -> str:
    """A setting, for people."""
    where = "the CPU, which says nothing about a GPU" if found["card"] == CPU else f"{found['card']}, driver {found['driver']}"
    toy = ", at toy sizes" if found["toy"] else ""
    return (
        f"{where}{toy}; torch {found['torch']}, transformers {found['transformers']}, {found['dtype']}, "
        f"{found['attention']} attention, sources {found['sources']}"
    )
