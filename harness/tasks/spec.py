"""`SuiteSpec`: what a suite is: a task of lmms-eval, the data that it reads, and how its answers become points."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError
from harness.models.videos.reading import FRAMES
from harness.tasks.labels import Labels, texts

_QUESTIONS = texts("question")
Videos = Callable[[Mapping[str, Any]], Sequence[str]]
"""From a question's row to where its video may lie, below the folder of the suite's data."""


@dataclass(frozen=True)
class Part:
    """One split of a data set: configuration (None: the default), split, and the columns that the task's code reads; or the
    tables of several configurations, `joined`, as one with a column `config` more.
    """

    config: str | None
    split: str
    columns: tuple[str, ...]
    joined: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A task's metric, and how it becomes points of 0-100: 100 x lmms-eval's aggregate / `full`.

    Attributes:
        name: lmms-eval's, in `metric_list`; empty: the only one there that is no submission.
        statistic: how samples' scores make the aggregate, and so its intervals (`harness.answers`); empty: found in each run,
            a mean where it is proven to be one, else resampled. A claimed mean is proven in each run as well.
        full: the aggregate of a model that is right throughout: 1 of shares, 100 of points; None: found by trying the task.
        per_group: a `full` for each value of the suite's stratum that has a score (MME's sums over categories).
        score: what a sample has under `name` -> share of 0-1, None for no score. By default a number, or a dict's `score`.
        aggregate: in place of lmms-eval's own aggregation: values -> aggregate. For one that is no function of its samples.
    """

    name: str
    statistic: str = ""
    full: float | None = 1.0
    per_group: bool = False
    score: Callable[[Any], float | None] | None = None
    aggregate: Callable[[Sequence[Any]], float] | None = None


@dataclass(frozen=True)
class SuiteSpec:
    """A benchmark, as lmms-eval's task `task` in `folder` defines it.

    Attributes:
        task: also the folder of its local data, unless `data` names another task's.
        folder: below `lmms_eval/tasks`, or anywhere.
        metric: the task's metric that is reported.
        questions: None for a task of which nothing but lmms-eval's configuration is known.
        several: whether a question's column of pictures holds a list of them.
        cluster: column that names a question's image; images are compared by content where it is absent.
        stratum: column whose values a `--limit` keeps in proportion.
        paired: questions with the same cluster are scored together, so a `--limit` never parts them.
        together: of the questions' table, what names those that are scored together, whatever their image; a `--limit` never
            parts them either.
        labels: checks a table of the columns (without images) and mends it where that is certain; refuses what lmms-eval would
            score 0 or stop at half-way.
        options: what of lmms-eval's configuration of the task is otherwise, top-level keys (a variant's prompts).
        judge: whether a language model scores the answers; it is asked through --judge.
        chance: points that guessing gives; a dense score below is a fault.
        everyday: whether `pytest suites/` runs it unasked.
        config_of: the task of lmms-eval whose configuration it has; empty: `task`. Where it is several tasks' questions.
        video: where a question's video is; None for questions about pictures.
        frames: of a video, that a model is shown unless a run asks for others.
        needs: Python modules that the task's code imports beside lmms-eval's own needs, and the packages that have them.
    """

    name: str
    task: str
    folder: str | Path
    metric: Metric
    title: str
    hub: str
    questions: Part | None = None
    images: Part | None = None
    cluster: str | None = None
    stratum: str | None = None
    paired: bool = False
    together: Callable[[Any], Sequence[Hashable]] | None = None
    labels: Labels = _QUESTIONS
    options: Mapping[str, Any] = field(default_factory=dict)
    judge: bool = False
    chance: float = 0.0
    everyday: bool = True
    data: str = ""
    several: bool = False
    config_of: str = ""
    video: Videos | None = None
    frames: int = FRAMES
    needs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def alike(cls, name: str, *rest: Any, **more: Any) -> "SuiteSpec":
        """A suite whose task, and its folder in lmms-eval, are called as it is; `rest` are the fields from `metric` on."""
        return cls(name, name, name, *rest, **more)

    def require_judge(self, judge: object) -> None:
        """Raise FitPruneError where a language model scores the answers, and none was given."""
        if self.judge and not judge:
            raise FitPruneError(
                f"suite '{self.name}': a language model scores it; give --judge URL, an OpenAI-compatible endpoint"
            )


def configurations(spec: SuiteSpec) -> list[str | None]:
    """The configurations of its data set that a suite reads."""
    return [part.config for part in (spec.questions, spec.images) if part is not None]
