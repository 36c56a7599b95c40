"""`tune`: from what was asked for to a finished search."""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fitprune.errors import FitPruneError
from harness.bench.bench import Bench
from harness.cells import DENSE, CellSettings
from harness.gate.thresholds import Thresholds
from harness.models.devices import check_device
from harness.models.family_names import announced
from harness.models.loading import require_model
from harness.models.registry import find_model
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.tasks.build import build_task
from harness.tasks.preflight import check_data
from harness.tasks.specs import find_suite
from harness.telling import PATIENCE, tell
from harness.tuning.asking import Asking, require_mean
from harness.tuning.candidates import BUDGETS, candidates_of, label
from harness.tuning.report import Tuned
from harness.tuning.search import ERROR, Progress, Search

FIRST_BATCHES = 2  # of a stretch at least


@dataclass(frozen=True)
class Asked:
    """What a search was asked for, checked.

    Attributes:
        again: the command that repeats it.
    """

    model: str
    suites: tuple[str, ...]
    allowed: Thresholds
    pruners: tuple[str, ...]
    reductions: tuple[float, ...]
    goal: str
    confirm: bool
    settings: CellSettings
    results: Path
    device: str | None
    again: str

    @classmethod
    def checked(cls, options: argparse.Namespace, again: str) -> "Asked":
        """The options of the command line. Raises FitPruneError, before any work, for what cannot be searched."""
        from baselines.registry import get_pruner_class

        suites = tuple(dict.fromkeys(find_suite(name).name for name in options.suite))
        allowed: Thresholds = options.max_drop
        allowed.check(suites)
        for suite in suites:
            points = allowed.points(suite)
            if points is None or not 0 < points < 100:
                raise FitPruneError(f"--max-drop {allowed}: {suite} needs a number of points above 0 and below 100")
        for pruner in options.pruner:
            if pruner == DENSE:
                raise FitPruneError("--pruner dense: it saves nothing; name methods that prune")
            get_pruner_class(pruner)
        check_device(options.device)
        model = announced(options.model).name
        require_model(model)
        data = options.data or ("mini" if find_model(model).kind == "embedded" else "hub")
        for suite in suites:
            metric = find_suite(suite).metric
            if metric.statistic:
                require_mean(suite, metric.name, metric.statistic)
            check_data(suite, data)
        if not options.plan:
            Store(options.results).check_writable()
        reductions = options.reduction or BUDGETS
        settings = CellSettings(data, options.limit, options.batch_size, options.seed, tuple(sorted(reductions)))
        return cls(
            *(model, suites, allowed, options.pruner, settings.reductions, options.goal, options.confirm, settings),
            *(options.results, options.device, again),
        )

    def margin(self, suite: str) -> float:
        """Points that may be lost on a suite."""
        points = self.allowed.points(suite)
        assert points is not None
        return points


def plan_lines(asked: Asked) -> list[str]:
    """What a search would ask: nothing is loaded and nothing is asked."""
    from tabulate import tabulate

    level, rows = ERROR / len(asked.pruners), []
    for suite in asked.suites:
        questions = len(build_task(suite, asked.settings.data, asked.settings.limit).rows)
        fewest = min(questions, math.ceil(math.log(1 / level) / -math.log1p(-asked.margin(suite) / 100)))
        rows.append([suite, f"{asked.margin(suite):g}", questions, fewest, min(questions, 2 * fewest), questions])
    heads = ["suite", "points allowed", "dense model", "fewest, if all are right", "about, where nothing is lost", "at most"]
    candidates = [label(pruner, budget) for pruner in asked.pruners for budget in asked.reductions]
    return [
        *tabulate(rows, heads, tablefmt="plain", disable_numparse=True).splitlines(),
        "",
        f"questions asked of the dense model, and of each of at most {len(candidates)} candidates, from mild to harsh within a "
        f"method, up to the first of each that is not certified: {', '.join(candidates)}",
    ]


def tune(asked: Asked) -> Tuned:
    """Search for the candidate that saves most among those whose drop is certified on every suite."""
    with tempfile.TemporaryDirectory(prefix="fitprune-tune-") as folder:
        bench = Bench(asked.settings, RunFolder(Path(folder)), Store(asked.results), asked.device)
        return searched(asked, bench)


def searched(asked: Asked, bench: Bench) -> Tuned:
    """The search, asked by this bench."""
    cells, notes = candidates_of(bench, asked.model, asked.pruners, asked.reductions, asked.suites, asked.goal)
    if not cells:
        raise FitPruneError(f"no candidate can be asked: {notes[0]}")
    asking = Asking(bench, cells, asked.confirm)
    suites = [asking.suite(name, asked.margin(name)) for name in asked.suites]
    first = FIRST_BATCHES * asked.settings.batch_size
    search = Search(suites, list(cells), asking.scores, seed=asked.settings.seed, first=first, listen=Told())
    best = search.run()
    tuned = Tuned(search, cells, asked.goal, asked.again, notes=notes)
    if best is not None and asked.confirm:
        tuned.confirmed = {suite: asking.confirmed(best, suite) for suite in asked.suites}
    return tuned


class Told:
    """Says where a search is, at most once in `PATIENCE` seconds, and for each new candidate."""

    def __init__(self) -> None:
        self._at, self._last = -math.inf, ""

    def __call__(self, progress: Progress) -> None:
        now, here = time.monotonic(), f"{progress.candidate.name} on {progress.suite}"
        if here == self._last and now - self._at < PATIENCE:
            return
        self._at, self._last = now, here
        best = "none yet" if progress.best is None else progress.best.name
        tell(f"{here}: {progress.asked} of {progress.questions} questions; best certified: {best}")
