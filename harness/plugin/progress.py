"""`Progress`: where a long run stands, a line when a cell has ended, at most one a minute in the log of a CI job."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from harness.plugin.summary import CellReport
from harness.words import duration

SECONDS_BETWEEN = 5.0
SECONDS_BETWEEN_QUIET = 60.0


def is_quiet(terminal: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether nobody watches: the output is no terminal, or `CI` is set."""
    return not terminal or environment.get("CI", "").lower() not in ("", "0", "false")


@dataclass
class Progress:
    """Counts the cells of a run as they end.

    Attributes:
        total: cells in all.
        quiet: whether lines are a minute apart.
        clock: the present in seconds.
        where: who is at work, in words; empty where that is this process.
    """

    total: int
    quiet: bool
    clock: Callable[[], float] = time.monotonic
    where: Callable[[], str] = str
    done: int = 0
    cached: int = 0
    questions: int = 0
    news: bool = False
    scores: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self.said = self.clock()

    def ended(self, report: CellReport) -> None:
        """Count a cell."""
        self.done += 1
        self.cached += report.cached
        self.news = True
        if report.result is not None:
            self.questions += 0 if report.cached else report.result.n
            if not report.result.cell.is_dense:
                self.scores.append((report.result.score, report.result.dense_score))

    def due(self) -> str | None:
        """The line to print; None where nothing is new, or the last one was a moment ago."""
        now = self.clock()
        soon = now - self.said < (SECONDS_BETWEEN_QUIET if self.quiet else SECONDS_BETWEEN)
        if not self.news or (soon and self.done < self.total):
            return None
        self.said, self.news = now, False
        return self.line(now - self.started)

    def line(self, elapsed: float) -> str:
        """`37 of 430 cells (12 cached), 393 left; 112 questions/s; about 25 min left; accuracy 83.2 pruned, 94.1 dense`."""
        measured, left = self.done - self.cached, self.total - self.done
        parts = [f"{self.done} of {self.total} cells ({self.cached} cached), {left} left", *filter(None, [self.where()])]
        if self.questions and elapsed > 0:
            parts.append(f"{self.questions / elapsed:.3g} questions/s")
        if measured and left:
            parts.append(f"about {duration(elapsed / measured * left)} left")
        if self.scores:
            pruned, dense = (fmean(side) for side in zip(*self.scores, strict=True))
            parts.append(f"accuracy so far {pruned:.1f} pruned, {dense:.1f} dense")
        return "; ".join(parts)
