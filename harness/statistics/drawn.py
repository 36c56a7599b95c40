"""A bound on a suite's own drop, from questions that are drawn one after another with unequal chances, none of them twice.

What is bounded is a number and no population: what asking all questions would show. So neither images that share questions nor
unequal images matter; all chance is in the draw. The dense scores of all questions are known.
"""

import math
from dataclasses import dataclass

import numpy as np

from harness.statistics.betting import STAKES, crossing


@dataclass(frozen=True)
class Draw:
    """How the next questions are drawn, decided before any of them is asked.

    Attributes:
        weights: (N,), > 0 for what is not asked yet; a question's chance is its share of what is left.
        predicted: (N,), the drop that is expected of each question. Valid whatever it is worth.
        stakes: what is bet against too large a drop and against too small a one, in (0, 1].
    """

    weights: np.ndarray
    predicted: np.ndarray
    stakes: tuple[float, float] = (0.5, 0.5)


class DrawnBound:
    """Evidence on the mean drop of N questions whose dense scores are known, valid at every moment.

    Weighted sampling without replacement (Shekhar, Xu, Lipton, Liang and Ramdas 2023, "Risk-limiting financial audits via
    weighted sampling without replacement", arXiv 2305.06884), with the betting of Waudby-Smith and Ramdas (arXiv 2010.09686)
    and a prediction as control variate. Before draw t let R be what is left, S the drops found so far, f the predictions and
    q(i) the chances in R. The payoff Y = (x_i - f_i) / q(i) of the question drawn has the mean Σ_R (x - f), whatever f and q
    are. If the mean drop is at least m, that is at least c = N m - S - Σ_R f. A dense score d cannot lose more than d nor gain
    more than 1 - d, so that Y ≤ B = max (d_i - f_i) / q(i). Then 1 + s (c - Y) / (B - c) is not negative for s in [0, 1] and
    has a mean of at most 1: the product over draws is a supermartingale that starts at 1 and ever reaches 1 / a with
    probability a at most (Ville 1939). f, q and s may depend on all that was seen before the draw, in this bound or elsewhere.
    The evidence is the mean of the products under eight fixed stakes and, half of it, under those that `Draw` names.
    """

    def __init__(self, dense: np.ndarray) -> None:
        if not (len(dense) and dense.min() >= 0 and dense.max() <= 1):
            raise ValueError("dense scores are shares, of at least one question")
        self.dense = dense
        self.left = np.ones(len(dense), dtype=bool)
        self.drops = np.zeros(len(dense))  # of what was asked
        self._rows: list[np.ndarray] = []  # per draw: payoff, known, top, bottom (of a question, in shares of N), two stakes

    @property
    def asked(self) -> int:
        """How many questions were asked."""
        return int((~self.left).sum())

    def draw(self, how: Draw, count: int, rng: np.random.Generator) -> np.ndarray:
        """The next `count` questions, in the order of drawing: by exponential clocks, whose first to ring is each in the chance
        of its weight (Efraimidis and Spirakis 2006, Information Processing Letters 97(5)).
        """
        places = np.flatnonzero(self.left)
        if not (how.weights[places] > 0).all():
            raise ValueError("a question that is left has no chance to be drawn")
        return places[np.argsort(rng.exponential(size=len(places)) / how.weights[places])[:count]]

    def add(self, how: Draw, places: np.ndarray, drops: np.ndarray) -> None:
        """Take in the drops (n,) of what `draw` gave, dense score less pruned score."""
        if not (self.left[places].all() and len(set(places.tolist())) == len(places)):
            raise ValueError("a question is asked once")
        above, below = self.dense[places] - drops, drops - self.dense[places] + 1
        if len(places) and min(above.min(), below.min()) < -1e-9:
            raise ValueError("a drop is what a score of 0-1 leaves of the dense one")
        left, total = self.left, len(self.dense)
        most = self.dense[left] - how.predicted[left]
        tops, bottoms = (most / how.weights[left]).max(), ((most - 1) / how.weights[left]).min()
        # What is left before each draw: its weight, and of it and of what was asked the drop that is known or predicted.
        drawn = np.cumsum(how.weights[places][::-1])[::-1]
        weights = how.weights[np.setdiff1d(np.flatnonzero(left), places)].sum() + drawn
        residual = drops - how.predicted[places]
        known = self.drops.sum() + how.predicted[left].sum() + np.cumsum(residual) - residual
        payoff = residual / how.weights[places] * weights
        stakes = np.broadcast_to(np.array(how.stakes)[:, None], (2, len(places)))
        self._rows.append(np.concatenate([np.stack([payoff, known, tops * weights, bottoms * weights]) / total, stakes]))
        self.left[places], self.drops[places] = False, drops

    def evidence_below(self, mean: float) -> float:
        """Logarithm of the evidence against a mean drop above `mean`; inf where it is impossible. It grows with `mean`."""
        most = self.drops.sum() + self.dense[self.left].sum()
        if most <= len(self.dense) * mean + 1e-9:
            return math.inf
        if not self.left.any():
            return -math.inf
        payoff, known, top, _, stakes, _ = self._draws()
        return _log_wealth(mean - known, payoff, top, stakes)

    def evidence_above(self, mean: float) -> float:
        """Logarithm of the evidence against a mean drop below `mean`; inf where it is impossible."""
        least = self.drops.sum() + (self.dense[self.left] - 1).sum()
        if least >= len(self.dense) * mean - 1e-9:
            return math.inf
        if not self.left.any():
            return -math.inf
        payoff, known, _, bottom, _, stakes = self._draws()
        return _log_wealth(known - mean, -payoff, -bottom, stakes)

    def interval(self, error: float) -> tuple[float, float]:
        """The mean drops that are not refuted at `error` / 2 on either side."""
        least, most = float((self.dense - 1).mean()), float(self.dense.mean())
        enough = math.log(2 / error)
        high = crossing(lambda mean: self.evidence_below(mean) >= enough, least, most)
        low = crossing(lambda mean: self.evidence_above(mean) < enough, least, most)
        return low, high

    def estimate(self) -> float:
        """The mean drop as the draws suggest it: each draw's own estimate is unbiased, and they are averaged; NaN without any,
        exact where all was asked.
        """
        if not self.left.any():
            return float(self.drops.mean())
        payoff, known, *_ = self._draws()
        return float((known + payoff).mean()) if len(payoff) else math.nan

    def _draws(self) -> np.ndarray:
        return np.concatenate(self._rows, 1) if self._rows else np.zeros((6, 0))


def _log_wealth(claim: np.ndarray, payoff: np.ndarray, top: np.ndarray, stakes: np.ndarray) -> float:
    """Of bets that pay `claim` - `payoff` in shares of the most that cannot ruin; inf where a claim is impossible."""
    room = top - claim
    if (room < -1e-9).any():
        return math.inf
    gain = (claim - payoff) / np.maximum(room, 1e-12)
    shares = np.concatenate([np.broadcast_to(STAKES[:, None], (len(STAKES), len(gain))), stakes[None]])
    with np.errstate(divide="ignore"):  # a whole stake is lost
        logs = np.log1p(np.maximum(shares * gain, -1.0)).sum(1)
    parts = np.append(logs[:-1] - math.log(2 * len(STAKES)), logs[-1] - math.log(2))
    return float(np.logaddexp.reduce(parts))
