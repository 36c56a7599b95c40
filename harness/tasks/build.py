"""lmms-eval's own tasks, reading mini, hub or local data.

A task keeps its original configuration, prompts and scores; only its `download` is ours.

    build_task("pope", "mini")                 # the task object, for lmms_eval.evaluator.simple_evaluate
    check_data("pope", "/data/parquet")        # the same data's pre-flight: fast, raises one-line errors
"""

import contextlib
import functools
import importlib.util
import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants

from fitprune.errors import FitPruneError
from harness.tasks.isolation import lmms_eval_evaluator, quiet
from harness.tasks.parquet import data_folder
from harness.tasks.specs import SUITES, find_suite

if TYPE_CHECKING:
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.tasks import TaskManager

MODEL_NAME = "fitprune"  # what tasks choose model-specific prompts by
# What a task that generates no answer to one prompt does.
_KINDS = {
    "multiple_choice": "which compares the likelihoods of given answers; here answers are generated",
    "loglikelihood": "which compares the likelihoods of given answers; here answers are generated",
    "generate_until_multi_round": "which asks in several rounds; here each question is asked once",
    "generate_until_agentic": "which asks in several rounds; here each question is asked once",
    "generate_visual_cot": "which asks for pictures; the models here answer in text",
}


def build_task(suite: str, data: str = "mini", limit: int | None = None, fetch: bool = False) -> "ConfigurableTask":
    """The suite's lmms-eval task, with its data loaded.

    Args:
        data: "mini" (ships with the package), "hub" (as it was downloaded), or a folder laid out as
            `<task>/<config>/<split>.parquet`.
        limit: number of questions; None is all. See `harness.tasks.limit`.
        fetch: download the hub's data where they are not on this machine.

    Returns a task with three attributes more: `rows` (the data's row of each doc_id), `data_digest` (str), and `notes`
    (list[str], what a reader of the score must know, e.g. fewer questions than asked).

    Raises FitPruneError for an unknown suite, and for data that are missing, damaged or out of reach.
    """
    if limit is not None and limit < 1:
        raise FitPruneError(f"limit must be at least 1, not {limit}")
    spec, config = find_suite(suite), task_config(suite)
    known = spec.questions is not None
    with quiet(), contextlib.nullcontext() if known else refusing(suite, "lmms-eval cannot read its data"):
        return _task_class(data, limit, fetch=fetch)(config=config, model_name=MODEL_NAME, suite=spec)


def task_config(suite: str) -> dict[str, Any]:
    """lmms-eval's configuration of the suite's task, with what the suite has otherwise.

    Raises FitPruneError, in one line, where it cannot be loaded, and for a task that is no generating task about images.
    """
    spec, manager = find_suite(suite), task_manager(suite)
    # Tasks that would ask a judge make its client when they are loaded; `harness.answering.judge` is what answers it.
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with quiet(), _home(), refusing(suite, "lmms-eval cannot load it"):
        # Without the task's code first: what this needs is not asked for where it would be of no use.
        task = spec.config_of or spec.task
        _refuse_other_kinds(suite, {**_as_written(manager, task), **spec.options}, () if spec.video else ("video",))
        return {**manager._get_config(task), **spec.options}


@contextlib.contextmanager
def _home() -> Iterator[None]:
    """Inside, the environment has the hub's home, also where that is the default: NExT-QA's code looks for it there alone."""
    absent = "HF_HOME" not in os.environ
    if absent:
        os.environ["HF_HOME"] = constants.HF_HOME
    try:
        yield
    finally:
        if absent:
            del os.environ["HF_HOME"]


def _as_written(manager: "TaskManager", task: str) -> dict[str, Any]:
    """The task's configuration, its functions not imported."""
    from lmms_eval.utils import load_yaml_config

    path = manager._get_yaml_path(task)
    return {} if path == -1 else dict(load_yaml_config(path, mode="simple"))


def _refuse_other_kinds(suite: str, config: Mapping[str, Any], unseen: tuple[str, ...] = ("video",)) -> None:
    kind = config.get("output_type") or "generate_until"
    if kind != "generate_until":
        raise FitPruneError(f"suite '{suite}': its task is '{kind}', {_KINDS.get(kind, 'which is not asked here')}")
    if (repeats := config.get("repeats") or 1) > 1:
        raise FitPruneError(f"suite '{suite}': its task asks each question {repeats} times; answers here are greedy and repeat")
    for medium in (*unseen, "audio"):
        if (config.get("dataset_kwargs") or {}).get(medium):
            videos = ", ".join(name for name, spec in SUITES.items() if spec.video)
            raise FitPruneError(
                f"suite '{suite}': its task is about {medium}, or its files come in archives as {medium} does; tasks are asked "
                f"about images, of parquet files, and of those about videos {videos}"
            )
    if config.get("doc_to_visual") is None:
        raise FitPruneError(f"suite '{suite}': its task shows no picture, so that there are no visual tokens to prune")
    metrics = [str(entry.get("metric")) for entry in config.get("metric_list") or () if entry]
    if metrics and all(map(is_submission, metrics)):
        raise FitPruneError(
            f"suite '{suite}': its task only writes a file to hand in ({', '.join(metrics)}), and gives no score"
        )


def is_submission(metric: str) -> bool:
    """Whether a metric of lmms-eval is none, but a file that is handed in to whoever has the answers."""
    return "submission" in metric.lower() or "submit" in metric.lower()


@contextlib.contextmanager
def refusing(suite: str, what: str) -> Iterator[None]:
    """Inside, what code of a task raises of which nothing is known is refused in one line, a missing package by its name."""
    try:
        yield
    except FitPruneError:
        raise
    except ImportError as error:
        # lmms-eval tries a second way to import, and says of that alone.
        causes = [error, *(cause for cause in (error.__cause__, error.__context__) if isinstance(cause, ImportError))]
        names = [str(cause.name or "") for cause in causes]
        name = next((name for name in names if name.partition(".")[0] not in ("", "lmms_eval")), "")
        top, _, inner = name.partition(".")
        if top and importlib.util.find_spec(top) is None:
            name = top
        elif not inner:  # it is there: what is missing is something in it
            name = ""
        if not name:
            raise FitPruneError(f"suite '{suite}': {what}: {_said(error)}") from None
        raise FitPruneError(f"suite '{suite}' needs the Python module '{name}', which is not installed") from None
    except (Exception, SystemExit) as error:
        raise FitPruneError(f"suite '{suite}': {what}: {_said(error)}") from None


def _said(error: BaseException) -> str:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if isinstance(error, KeyError) and frame.f_globals is vars(os):
        return f"it reads the environment variable {error.args[0]}, which is not set"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


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

    ours = _task_class(data, limit, answered_by, fetch=True)
    lmms_eval.tasks.ConfigurableTask = ours
    try:
        yield
    finally:
        if lmms_eval.tasks.ConfigurableTask is ours:
            lmms_eval.tasks.ConfigurableTask = ConfigurableTask


def _task_class(data: str, limit: int | None, answered_by: Mapping[str, Any] | None = None, fetch: bool = False) -> Any:
    """What builds a task that reads `data`, called with lmms-eval's own arguments (config, model_name)."""
    from harness.tasks.reading import HubTask, LocalTask

    if data == "hub":
        return functools.partial(HubTask, limit=limit, answered_by=answered_by, fetch=fetch)
    return functools.partial(LocalTask, folder=data_folder(data), limit=limit, answered_by=answered_by)
