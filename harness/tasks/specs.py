"""The suites by name: those that ship, other packages', and any task of lmms-eval.

Other packages add suites by entry points of the group `fitprune.suites`, name = "module:SPEC", a `SuiteSpec` of that name. Any
other task of lmms-eval is a suite too, by the name TASK or TASK:METRIC.
"""

import difflib
import functools
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fitprune.errors import unknown_name
from fitprune.registries import Registry
from harness.tasks.shipped import SHIPPED
from harness.tasks.spec import Metric, SuiteSpec

GROUP = "fitprune.suites"
_TASK = re.compile(r"""^["']?task["']?\s*:\s*["']?([\w.+-]+)["']?\s*(?:#.*)?$""", re.MULTILINE)


def _fault(loaded: object) -> str:
    return "" if isinstance(loaded, SuiteSpec) else "is no harness.tasks.SuiteSpec"


_SHIPPED = {spec.name: spec for spec in SHIPPED}
_registry = Registry[SuiteSpec](_SHIPPED, GROUP, "suite", _fault)
SUITES: Mapping[str, SuiteSpec] = _registry


@functools.lru_cache(maxsize=256)
def find_suite(name: str) -> SuiteSpec:
    """The suite of that name, or of that lmms-eval task, shipped or not; with `:METRIC`, by that metric.

    Raises FitPruneError with the nearest names.
    """
    if name in SUITES:
        return SUITES[name]
    task, _, metric = name.partition(":")
    known = SUITES[task] if task in SUITES else next((spec for spec in SUITES.values() if spec.task == task), None)
    if known is not None:
        if metric in ("", known.metric.name):
            return known
        alike = next((spec.metric for spec in SUITES.values() if (spec.task, spec.metric.name) == (known.task, metric)), None)
        changed = alike or Metric(metric, full=None)
        return replace(known, name=f"{known.name}:{metric}", metric=changed, title=f"{known.title} {metric}", chance=0.0)
    folder = task_folders().get(task)
    if folder is None:
        near = difflib.get_close_matches(name, known_names := {*SUITES, *task_folders()}, n=1, cutoff=0.5)
        raise unknown_name("suite", name, known_names if near else SUITES)
    return SuiteSpec(name, task, folder, Metric(metric, full=None), name, hub="")


def shows_videos(name: str) -> bool:
    """Whether a suite's questions are about videos."""
    spec = SUITES.get(name.partition(":")[0])
    return spec is not None and spec.video is not None


def frames_shown(name: str, asked: int | None) -> int:
    """Frames of each video of a suite, in a run that asks for so many or for none in particular; 0 where pictures are shown."""
    return (asked or SUITES[name.partition(":")[0]].frames) if shows_videos(name) else 0


def suite_title(name: str) -> str:
    """A suite's name as people write it."""
    return SUITES[name].title if name in SUITES else name


def package_of(spec: SuiteSpec) -> str:
    """The module that another package's suite is registered in; empty for all others."""
    entry = _registry.others.get(spec.name.partition(":")[0])
    return "" if entry is None else entry.module


@functools.cache
def task_folders() -> Mapping[str, str]:
    """The name of every task of the installed lmms-eval, and its folder below `lmms_eval/tasks`.

    Read from its files by their text, in 0.1 s: lmms-eval's own index takes seconds, and an import that takes more.
    """
    spec = importlib.util.find_spec("lmms_eval")
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        return {}
    root = Path(places[0]) / "tasks"
    found = {}
    for path in sorted(root.rglob("*.yaml")):
        if named := _TASK.search(path.read_text(encoding="utf-8", errors="ignore")):
            found[named[1]] = path.relative_to(root).parts[0]
    return found
