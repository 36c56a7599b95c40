"""`Averages`: what the suites of a row have in common, read from their answers where an average asks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fitprune.errors import FitPruneError
from harness.results.result import Result
from harness.results.store import Store
from harness.statistics import Influence, correlations, paired_drop, score_interval
from harness.statistics.averages import MINI, sharing, unproven


@dataclass(frozen=True)
class Together:
    """Of a row's suites: the correlations of the errors of their scores and of their drops (suites, suites), which suites
    share images, and which are on one collection and are not known to.
    """

    scores: np.ndarray
    drops: np.ndarray
    sharing: list[str]
    unproven: list[str]


class Averages:
    """Reads a row's answers once, and keeps what came of it.

    Args:
        store: the results folder; without one no image is known.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store
        self._known: dict[tuple[str, ...], Together] = {}

    def of(self, results: Mapping[str, Result]) -> Together:
        """Of a row's results by suite. Of answers that cannot be read, which `read_computed` names, no image is known."""
        names = tuple(result.name for result in results.values())
        if names not in self._known:
            data = next(iter(results.values())).data
            # Mini suites share no image, and one suite is no average: nothing to read.
            read = self.store is not None and data != MINI and len(results) > 1
            found = {suite: self._influences(result) if read else (None, None) for suite, result in results.items()}
            scores, drops = ({suite: pair[side] for suite, pair in found.items()} for side in (0, 1))
            self._known[names] = Together(
                correlations(scores, data), correlations(drops, data), sharing(scores), unproven(scores, data)
            )
        return self._known[names]

    def _influences(self, result: Result) -> tuple[Influence | None, Influence | None]:
        """Of the images on a result's score, and on its drop."""
        assert self.store is not None
        try:
            own, dense = self.store.read_both(result)
            drop = None if result.cell.is_dense else paired_drop(dense, own, ends=False).influence
            return score_interval(own, ends=False).influence, drop
        except FitPruneError:
            return None, None
