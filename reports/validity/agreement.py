"""Rank correlations between a table measured here and printed ones, over the methods that both have.

Both sides count what a method retains: its score as a share of the dense model's, mean over suites. Each printed table is a
scale of its own; none is mixed with another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from harness.cells import DENSE
from harness.published.tables import PublishedTable, columns, tables
from harness.results.table import Row, Table

LEFT_OUT = ("scienceqa", "average drop")
"""ScienceQA hardly moves under pruning, and ranks methods at random from paper to paper; the other is no score."""
LEAST = 3
"""Methods in common that a correlation is taken over at least."""
COUNTS = 5
"""Methods in common from which on a table counts in the mean."""
Retained = Mapping[str, float]


@dataclass(frozen=True)
class Agreement:
    """One printed table against what was measured.

    Attributes:
        printed, here: what each method in common retains, in points of the dense model's.
        rho: Spearman's correlation; low, high: its 95 % bootstrap interval over methods.
        ceiling: other printed table → its correlation with this one, and over how many methods.
    """

    table: PublishedTable
    printed: Retained
    here: Retained
    rho: float
    low: float
    high: float
    ceiling: Mapping[str, tuple[float, int]]


def agreements(here: Retained, model: str, tokens: int) -> list[Agreement]:
    """The printed tables of `model` at `tokens` visual tokens with at least LEAST methods of `here`, most of them first."""
    known = known_tables(model)
    found = []
    for table in known:
        printed = printed_retained(table, tokens, here)
        if len(printed) >= LEAST:
            ours = {method: here[method] for method in printed}
            both = list(printed.values()), list(ours.values())
            others = {other.name: _between(table, other, tokens) for other in known if other is not table}
            ceiling = {name: pair for name, pair in others.items() if pair[1] >= LEAST}
            found.append(Agreement(table, printed, ours, spearman(*both), *bootstrap(*both), ceiling))
    return sorted(found, key=lambda agreement: -len(agreement.printed))


def pooled(here: Retained, model: str, tokens: int) -> Retained:
    """What each method of `here` retains in print, mean over all tables that have it: across tables, which hardly compare."""
    printed = [printed_retained(table, tokens, here) for table in known_tables(model)]
    methods = [method for method in here if any(method in part for part in printed)]
    return {method: float(np.mean([part[method] for part in printed if method in part])) for method in methods}


def printed_retained(table: PublishedTable, tokens: int, methods: Sequence[str] | Retained | set[str]) -> dict[str, float]:
    """What each of `methods` that the table has at `tokens` visual tokens retains there, over the columns that all of these
    methods have. The dense score of a column is the table's own, or else another table's of the same model.
    """
    rows = {row.pruner: row.values for row in reversed(table.rows) if row.setting.tokens == tokens and row.pruner in methods}
    dense = _dense(table)
    columns = [name for name in dense if rows and all(name in values for values in rows.values())]
    if not columns:
        return {}
    return {
        method: float(np.mean([100 * float(values[name]) / dense[name] for name in columns])) for method, values in rows.items()
    }


def measured_retained(table: Table, asked: float | Mapping[str, float]) -> dict[str, float]:
    """What each method retains in a measured table at an asked reduction, one for all methods or each with its own, with its
    authors' position ids, over the suites that are compared.
    """
    suites = compared(table)
    dense = next(row for row in table.rows if row.is_dense)
    found = {}
    for row in table.rows:
        cell = row.cell
        reduction = asked.get(cell.pruner) if isinstance(asked, Mapping) else asked
        wanted = cell.reduction is not None and cell.reduction == reduction and not cell.positions
        if not row.is_dense and wanted and set(suites) <= row.results.keys():
            found[cell.pruner] = float(np.mean([100 * _score(row, suite) / _score(dense, suite) for suite in suites]))
    return found


def compared(table: Table) -> list[str]:
    """The suites of a measured table that count. Where two measure one printed column, that is the one which asks and scores
    as papers do: `textvqa-ocr`, whose prompt holds what an OCR engine read, before `textvqa`.
    """
    measured = [[suite for suite in column.suites if suite in table.averaged] for column in columns().values()]
    further = {suite for suites in measured for suite in suites[1:]}
    return [suite for suite in table.averaged if suite not in LEFT_OUT and suite not in further]


def mean_over_seeds(seeds: Mapping[str, Retained]) -> dict[str, float]:
    """What each method retains, mean over the seeds of one model, of the methods that all of them have."""
    common = set.intersection(*map(set, seeds.values()))
    first = next(iter(seeds.values()))
    return {method: float(np.mean([part[method] for part in seeds.values()])) for method in first if method in common}


def mean_rho(found: Sequence[Agreement]) -> tuple[float, int]:
    """The mean correlation with tables of COUNTS methods in common or more, and how many these are; NaN of none."""
    counted = [agreement.rho for agreement in found if len(agreement.printed) >= COUNTS]
    return float(np.mean(counted)) if counted else float("nan"), len(counted)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is all ties."""
    return float(_correlations(np.array([one], dtype=float), np.array([other], dtype=float))[0])


def bootstrap(one: Sequence[float], other: Sequence[float], draws: int = 10_000) -> tuple[float, float]:
    """The middle 95 % of the correlations of methods drawn again with replacement; draws without one are left out."""
    chosen = np.random.default_rng(0).integers(len(one), size=(draws, len(one)))
    rhos = _correlations(np.array(one)[chosen], np.array(other)[chosen])
    low, high = np.nanpercentile(rhos, [2.5, 97.5])
    return float(low), float(high)


def everywhere_ahead(found: Sequence[Agreement], of: str) -> set[str]:
    """The methods that every table with them and `of` has ahead of it, in at least one table."""
    pairs = [(method, value > a.printed[of]) for a in found if of in a.printed for method, value in a.printed.items()]
    return {method for method, _ in pairs} - {method for method, ahead in pairs if not ahead}


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in (rankdata(side, axis=1) for side in (one, other)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))


def _between(one: PublishedTable, other: PublishedTable, tokens: int) -> tuple[float, int]:
    """The correlation of two printed tables, and how many methods they have in common."""
    common = _methods(one, tokens) & _methods(other, tokens)
    first, second = (printed_retained(table, tokens, common) for table in (one, other))
    if min(len(first), len(second)) < LEAST:
        return float("nan"), 0
    return spearman(list(first.values()), [second[method] for method in first]), len(first)


def known_tables(model: str) -> list[PublishedTable]:
    """The printed tables of a model, but for those that nothing here can be compared with."""
    return [table for table in tables().values() if table.model == model and not table.cannot]


def _dense(table: PublishedTable) -> dict[str, float]:
    alike = [table, *(other for other in tables().values() if other.model == table.model)]
    rows = [row for each in alike for row in each.rows if row.method == DENSE]
    names = {name: None for row in rows for name in row.values if name not in LEFT_OUT}
    return {name: next(float(row.values[name]) for row in rows if name in row.values) for name in names}


def _methods(table: PublishedTable, tokens: int) -> set[str]:
    return {row.pruner for row in table.rows if row.setting.tokens == tokens}


def _score(row: Row, suite: str) -> float:
    figure = row.figure(suite)
    assert figure is not None
    return figure.score
