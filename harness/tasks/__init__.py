"""The tasks of lmms-eval, and the data that they ask of."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.tasks.build import build_task, tasks_reading
    from harness.tasks.specs import SUITES, SuiteSpec, find_suite

__all__ = [
    "SUITES",
    "SuiteSpec",
    "build_task",
    "find_suite",
    "tasks_reading",
]

# Imported when asked for: a command line that only checks its input should not wait for torch.
_HOMES = {
    "SUITES": "specs",
    "SuiteSpec": "specs",
    "build_task": "build",
    "find_suite": "specs",
    "tasks_reading": "build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
