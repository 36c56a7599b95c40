"""lmms-eval's own tasks, reading mini, hub or local data.

A task keeps its original configuration, prompts and scores; only its `download` is ours.

    build_task("pope", "mini")                 # the task object, for lmms_eval.evaluator.simple_evaluate
    check_data("pope", "/data/parquet")        # the same data's pre-flight: fast, raises one-line errors
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.tasks.isolation import lmms_eval_evaluator, quiet
from harness.tasks.parquet import data_folder
from harness.tasks.specs import find_suite

if TYPE_CHECKING:
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.tasks import TaskManager

MODEL_NAME = "fitprune"  # what tasks choose model-specific prompts by


def build_task(suite: str, data: str = "mini", limit: int | None = None) -> "ConfigurableTask":
    """The suite's lmms-eval task, with its data loaded.

    Args:
        data: "mini" (ships with the package), "hub" (the task downloads as it always does), or a folder laid out as
            `<task>/<config>/<split>.parquet`.
        limit: number of questions; None is all. See `harness.tasks.limit`.

    Returns a task with three attributes more: `rows` (the data's row of each doc_id), `data_digest` (str), and `notes`
    (list[str], what a reader of the score must know, e.g. fewer questions than asked).

    Raises FitPruneError for an unknown suite, and for data that are missing, damaged or out of reach.
    """
    spec = find_suite(suite)
    if limit is not None and limit < 1:
        raise FitPruneError(f"limit must be at least 1, not {limit}")
    with quiet():
        config = task_manager(suite)._get_config(spec.task)
        return _task_class(data, limit)(config={**config, **spec.options}, model_name=MODEL_NAME, suite=spec)


@functools.cache
def task_manager(suite: str) -> "TaskManager":
    """An lmms-eval task manager that knows the one folder of the suite (12 ms; indexing all tasks takes seconds)."""
    evaluator = lmms_eval_evaluator()
    with quiet():
        return evaluator.TaskManager(include_path=str(task_folder(suite)), include_defaults=False, model_name=MODEL_NAME)


def task_folder(suite: str) -> Path:
    """Where lmms-eval keeps the suite's task: its prompts, its configuration and the code that scores it."""
    lmms_eval_evaluator()
    import lmms_eval.tasks

    return Path(lmms_eval.tasks.__file__).parent / find_suite(suite).folder


@contextlib.contextmanager
def tasks_reading(data: str, limit: int | None = None, answered_by: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Inside, tasks that lmms-eval builds by name read `data`. For its command line, which offers no such choice.

    Args:
        answered_by: what decides the answers, as strict JSON. It becomes a part of the tasks' configurations, together with
            the digest of their data, and so of the keys of lmms-eval's own response cache.
    """
    import lmms_eval.tasks
    from lmms_eval.api.task import ConfigurableTask

    ours = _task_class(data, limit, answered_by)
    lmms_eval.tasks.ConfigurableTask = ours
    try:
        yield
    finally:
        if lmms_eval.tasks.ConfigurableTask is ours:
            lmms_eval.tasks.ConfigurableTask = ConfigurableTask


def _task_class(data: str, limit: int | None, answered_by: Mapping[str, Any] | None = None) -> Any:
    """What builds a task that reads `data`, called with lmms-eval's own arguments (config, model_name)."""
    from harness.tasks.reading import HubTask, LocalTask

    if data == "hub":
        return functools.partial(HubTask, limit=limit, answered_by=answered_by)
    return functools.partial(LocalTask, folder=data_folder(data), limit=limit, answered_by=answered_by)
