"""Runs that were saved under a name, in the results folder's `saved/NAME/`, and comparison of this run with one."""

import argparse
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fitprune.errors import FitPruneError, unknown_name
from harness.answers import Answers
from harness.cells import Cell
from harness.gate.thresholds import Thresholds
from harness.gate.wording import STRICT_GATES, ends, undecided
from harness.results.computed import computed
from harness.results.result import Result
from harness.results.store import Store
from harness.statistics import GATES, Verdict, paired_drop, questions_needed

FOLDER = "saved"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def run_name(text: str) -> str:
    """The name of a saved run, as an argument type."""
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text} is not a name made of letters, digits, '.', '_' and '-'")
    return text


@dataclass(frozen=True)
class SavedRun:
    """The saved run NAME of a results folder. Its cells are results like others, with their answers."""

    results: Store
    name: str

    @property
    def store(self) -> Store:
        """Where its cells lie."""
        return Store(self.results.files.below(f"{FOLDER}/{self.name}"))

    def check(self, models: Iterable[str], data: str, limit: int | None) -> None:
        """Raise FitPruneError, in one line, if there is no such run, or if none of its cells answered these questions."""
        folder = self.results.files.below(FOLDER)
        known = folder.folders()
        if self.name not in known:
            if not known:
                raise FitPruneError(
                    f"unknown saved run '{self.name}'; no run is saved in {folder.place}: --save NAME saves one"
                )
            raise unknown_name("saved run", self.name, known)
        results = self.store.read_all().results
        if not any(result.model in models for result in results):
            there = ", ".join(sorted({result.model for result in results})) or "nothing that can be read"
            raise FitPruneError(f"saved run '{self.name}' has no cell of {', '.join(models)}; it has {there}")
        asked = dict.fromkeys((result.data, result.limit) for result in results)
        if (data, limit) not in asked:
            there_data, there_limit = next(iter(asked))
            raise FitPruneError(
                f"saved run '{self.name}' answered other questions: it was made with --data {there_data}"
                + ("" if there_limit is None else f" --limit {there_limit}")
            )

    def write(self, result: Result, answers: Answers, dense: Answers | None) -> None:
        """Keep a cell, in place of what an earlier run of that name has for it."""
        self.store.write(result, answers, dense)
        for older in self._all_of(result.cell):
            if older.name != result.name:
                self.store.remove(older)

    def find(self, cell: Cell) -> Result | None:
        """The saved result of a cell; None if it is not in the run. Raises FitPruneError, in one line, if it is damaged."""
        return max(self._all_of(cell), key=lambda result: result.date, default=None)

    def _all_of(self, cell: Cell) -> list[Result]:
        store = self.store
        return [result for result in map(store.find, store.names_of(cell)) if result.cell == cell]


def compare(
    saved: SavedRun, result: Result, answers: Answers, gate: str, allowed: Thresholds | None, *, timed: bool = True
) -> dict[str, Any]:
    """A cell of this run against the same cell of a saved one, as a result's `compared`.

    The drop is the saved score minus this one, on the same questions, judged by the run's gate where `allowed` has a
    threshold. Time is that of a prefill over the dense model's in its own run, since runs need not share a machine; where
    this run did not take it (`timed`), it is compared with nothing.

    Raises FitPruneError, in one line, if the cell's answers there are no pair to these.
    """
    points = None if allowed is None else allowed.points(result.suite)
    before = saved.find(result.cell)
    if before is None:
        missing = f"{result.cell.label()} on {result.suite} is not in the saved run '{saved.name}'"
        return {"with": saved.name, "missing": missing, "complaints": [missing] if points is not None else []}
    there, dense = saved.store.read_both(before)
    try:
        drop = paired_drop(there, answers)
    except FitPruneError as error:
        raise FitPruneError(
            f"saved run '{saved.name}' cannot be compared: {error} (there, and here); give the options that it was made with"
        ) from None
    before = computed(before, there, dense)
    record: dict[str, Any] = {
        "with": saved.name,
        "score": before.score,
        "drop": drop.drop,
        "drop_ci95": [drop.low, drop.high],
        "n": drop.n,
        "prefill_change": _slower(before, result) if timed else math.nan,
        "complaints": [],
    }
    if points is not None:
        verdict = GATES[gate](drop, points)
        record |= {"allowed": points, "verdict": str(verdict)}
        if verdict == Verdict.FAIL:
            record["complaints"].append(_lost(record, result))
        elif verdict == Verdict.UNDECIDED and gate in STRICT_GATES:
            record["complaints"].append(
                f"undecided: {result.cell.label()} on {result.suite}, compared with '{saved.name}', "
                + undecided(drop.drop, drop.low, drop.high, drop.n, points, questions_needed(drop, points))
            )
    if allowed is not None and allowed.latency is not None and not result.cell.is_dense:
        record["complaints"] += _too_slow(record["prefill_change"], saved, result, allowed.latency)
    return record


def comparison_lines(results: Iterable[Result]) -> list[str]:
    """What the summary says: how many cells differ, then each that does, or that failed, or has nothing to compare with."""
    compared = [result for result in results if result.compared]
    lines = [result.compared["missing"] for result in compared if "missing" in result.compared]
    pairs = [result for result in compared if "drop" in result.compared]
    differing = [result for result in pairs if _differs(result.compared)]
    if pairs:
        name = pairs[0].compared["with"]
        lines.append(f"compared with '{name}': {len(differing)} of {len(pairs)} cells differ with 95 % confidence")
    for result in pairs:
        if result in differing or result.compared["complaints"]:
            lines.append(f"  {_lost(result.compared, result)}{' ✗' if result.compared['complaints'] else ''}")
    return lines


def _slower(before: Result, result: Result) -> float:
    """By what share the prefill's time, relative to dense in its own run, has grown; NaN where one has none, and for dense."""
    if result.cell.is_dense:
        return math.nan
    old, new = ((side.latency_ms or {}).get("prefill_ratio") for side in (before, result))
    return new / old - 1 if old and new else math.nan


def _too_slow(change: float, saved: SavedRun, result: Result, allowed: float) -> list[str]:
    where = f"{result.cell.label()} on {result.suite}"
    if math.isnan(change):
        return [
            f"{where}: its prefill was not timed in this run and in '{saved.name}', so that no latency can be compared; "
            "--rerun times it"
        ]
    if change <= allowed / 100:
        return []
    return [
        f"{where}: its prefill takes {change:.0%} more of the dense model's time than in '{saved.name}'; allowed: {allowed:g}%"
    ]


def _differs(record: dict[str, Any]) -> bool:
    low, high = record["drop_ci95"]
    return low > 0 or high < 0


def _lost(record: dict[str, Any], result: Result) -> str:
    low, high = record["drop_ci95"]
    allowed = f", allowed {record['allowed']:g}" if "allowed" in record else ""
    return (
        f"{'lost' if record['drop'] >= 0 else 'gained'} {abs(record['drop']):.1f} points against '{record['with']}' "
        f"({record['score']:.1f} → {result.score:.1f}) on {result.suite}{allowed}: {result.cell.label()}, "
        f"95 % interval of the drop {ends(low, high)}, n = {record['n']}"
    )
