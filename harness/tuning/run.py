"""`tune`: from what was asked for to a finished search; `candidates_of`: each method at each budget that it can reach."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fitprune.errors import BudgetError, FitPruneError, UnsupportedModel
from harness.bench.bench import Bench
from harness.bench.resolved import Resolved
from harness.cells import Cell
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.tasks.build import build_task
from harness.telling import PATIENCE, tell
from harness.tuning.asked import Asked
from harness.tuning.asking import Asking
from harness.tuning.report import Frontier, Tuned
from harness.tuning.search import ERROR, Candidate, Progress, Search

FIRST_BATCHES = 2  # of a stretch at least


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
    search = Search(suites, list(cells), asking.scores, seed=asked.settings.seed, first=first)
    search.listen = Told(search)
    best = search.run()
    tuned = Tuned(search, cells, asked.goal, asked.again, notes=notes)
    if best is not None and asked.confirm:
        tuned.confirmed = {suite: asking.confirmed(best, suite) for suite in asked.suites}
    return tuned


def label(pruner: str, reduction: float) -> str:
    """A candidate's name."""
    return f"{pruner}@{reduction:g}"


def candidates_of(
    bench: Bench, model: str, pruners: Sequence[str], reductions: Sequence[float], suites: Sequence[str], goal: str = "flops"
) -> tuple[dict[Candidate, dict[str, Resolved]], list[str]]:
    """Each candidate with its cells by suite, and a line for each that cannot be: its budget is out of the method's reach.

    goal: "flops", where a candidate saves its share of the visual tokens' FLOPs; "latency", where it saves the share of the
    time of a short answer that was measured here.
    """
    found: dict[Candidate, dict[str, Resolved]] = {}
    notes: list[str] = []
    for pruner in pruners:
        for reduction in sorted(reductions):
            cells = {suite: Cell(model, pruner, reduction, suite) for suite in suites}
            try:
                resolved = {suite: bench.resolver.resolve(cell) for suite, cell in cells.items()}
            except (BudgetError, UnsupportedModel) as error:
                notes.append(f"{label(pruner, reduction)}: {error}")
                continue
            saved = reduction if goal == "flops" else saved_time(bench, resolved)
            found[Candidate(label(pruner, reduction), pruner, saved)] = resolved
    return found, notes


def saved_time(bench: Bench, resolved: Mapping[str, Resolved]) -> float:
    """Which share of the dense model's time a short answer takes less."""
    return 1 - float(bench.timing.of(next(iter(resolved.values())))["latency_ms"]["end_to_end_ratio"])


class Told:
    """Says where a search is, at most once in `PATIENCE` seconds and for each new candidate; draws its frontier as it goes."""

    def __init__(self, search: Search) -> None:
        self._search, self._drawn, self._at, self._last = search, 0, -math.inf, ""

    def __call__(self, progress: Progress) -> None:
        for tried in self._search.tried[self._drawn :]:
            tell(str(Frontier.of(tried)))
        self._drawn = len(self._search.tried)
        now, here = time.monotonic(), f"{progress.candidate.name} on {progress.suite}"
        if here == self._last and now - self._at < PATIENCE:
            return
        self._at, self._last = now, here
        best = "none yet" if progress.best is None else progress.best.name
        tell(f"{here}: {progress.asked} of {progress.questions} questions; best certified: {best}")
