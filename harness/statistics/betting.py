"""A bound on a mean that holds at every moment of its collection, so that a run may stop as soon as it decides."""

import math
from collections.abc import Callable

import numpy as np

from harness.statistics.estimates import CONFIDENCE

# Shares of the largest bet that cannot ruin. Halving steps: some bet is always near the best one, whatever the variance.
STAKES = 0.5 ** np.arange(8)
DECIDES = 2 / (1 - CONFIDENCE)  # the wealth that refutes a mean at 2.5 %


class BettingBound:
    """An anytime-valid 95 % interval for the mean of independent draws from [-1, 1].

    Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting" (Journal of the Royal
    Statistical Society B 86(1), arXiv 2010.09686): whoever bets against the claim that the mean is at least m stakes a
    share c of the most that cannot ruin on each draw x, and multiplies the wealth by 1 + c (m - x) / (1 - m). If the claim
    is true the wealth is a supermartingale that starts at 1, and ever reaches 40 with probability 1/40 at most (Ville 1939).
    The interval holds the means that neither side's wealth has refuted at the moment. A deviation: the paper's bets follow
    the draws; here the wealth is the mean over fixed shares, the `STAKES`, so that the order within a batch does not matter.
    """

    def __init__(self) -> None:
        self.draws: list[float] = []

    def add(self, draws: np.ndarray) -> None:
        """Take in more draws, (n,) in [-1, 1]."""
        if len(draws) and not (draws.min() >= -1 and draws.max() <= 1):
            raise ValueError(f"draws lie in [-1, 1], not {draws.min()} to {draws.max()}")
        self.draws += draws.tolist()

    def refutes_at_least(self, mean: float) -> bool:
        """Whether the draws refute, at 2.5 %, that the mean is `mean` or more."""
        return _log_wealth(np.array(self.draws), mean) >= math.log(DECIDES)

    def refutes_at_most(self, mean: float) -> bool:
        """Whether the draws refute, at 2.5 %, that the mean is `mean` or less."""
        return _log_wealth(-np.array(self.draws), -mean) >= math.log(DECIDES)

    def interval(self) -> tuple[float, float]:
        """The means that are not refuted."""
        draws = np.array(self.draws)
        return -_least_refuted(-draws), _least_refuted(draws)


def _log_wealth(draws: np.ndarray, mean: float) -> float:
    """Logarithm of the wealth against the claim that the mean is `mean` or more; it grows with `mean`."""
    if mean >= 1:
        return math.inf
    # Few distinct values come many times: right or wrong answers, averaged over an image's few questions.
    values, counts = np.unique(draws, return_counts=True)
    with np.errstate(divide="ignore"):  # the whole stake on a draw of 1 is lost
        logs = (counts * np.log1p(STAKES[:, None] * (mean - values) / (1 - mean))).sum(1)
    return float(np.logaddexp.reduce(logs) - math.log(len(STAKES)))


def _least_refuted(draws: np.ndarray) -> float:
    """The least mean that is refuted as too high; 1 if none is."""
    return crossing(lambda mean: _log_wealth(draws, mean) >= math.log(DECIDES), -1.0, 1.0)


def crossing(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least mean between the two from which on something holds; `high` if it does nowhere."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
