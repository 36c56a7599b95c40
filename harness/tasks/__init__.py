"""The tasks of lmms-eval, and the data that they ask of."""

from typing import TYPE_CHECKING

from fitprune.lazy import importing

if TYPE_CHECKING:
    from harness.tasks.build import build_task, tasks_reading
    from harness.tasks.spec import Metric, SuiteSpec
    from harness.tasks.specs import SUITES, find_suite

__all__ = ["SUITES", "Metric", "SuiteSpec", "build_task", "find_suite", "tasks_reading"]

__getattr__ = importing(
    __name__,
    dict.fromkeys(("SUITES", "find_suite"), "harness.tasks.specs")
    | dict.fromkeys(("Metric", "SuiteSpec"), "harness.tasks.spec")
    | dict.fromkeys(("build_task", "tasks_reading"), "harness.tasks.build"),
)
