"""What foretells that a pruned model's answer differs, and the draws that follow from it. No bound needs any of it to hold:
`DrawnBound` is valid whatever is predicted; a good prediction makes it narrow after few questions.
"""

import math

import numpy as np
from scipy.special import expit

from harness.statistics.drawn import Draw, DrawnBound

# Before anything was seen: one question in fifty differs, more often where the dense answer is less certain. Log odds.
_CONSTANT, _SLOPE = -4.0, 1.0
_RIDGE = 2.0  # how firmly coefficients are held to these
_BOUNDS = (1e-4, 0.5)  # of a chance: nothing is sure, and what mostly differs is no reason to expect it of one question
_STAKES = 0.5 ** (np.arange(12) / 2)
_SPREADS = (0.03, 0.1, 0.2, 0.35, 0.6)
_RARELY = 1e-3  # share of the draws that fall on any question alike
_LOOKED_AT = 4096  # questions by which a draw is chosen
_CLEARLY = 1.5  # times the margin, from which on an expected drop is to be shown to be above it: near it nothing is quick
_LEAST = 0.25  # of the margin, as which a smaller distance between it and the drop counts when stakes are chosen


class Foreteller:
    """Chances that a question loses and that it gains: two logistic regressions, by penalised maximum likelihood, on all
    questions of a suite that were asked of any candidate so far.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def take_in(self, features: np.ndarray, dense: np.ndarray, drops: np.ndarray) -> None:
        """Learn from questions that were asked, with features (n, k), dense scores (n,) and drops (n,)."""
        self._seen.append((features, dense, drops))

    def chances(self, features: np.ndarray, bound: DrawnBound) -> tuple[np.ndarray, np.ndarray]:
        """(N,) expected shares of what a question can lose, and of what it can gain, under the candidate of the bound.

        features: (N, k), of the order of 1; the first is the larger the less certain the dense answer is.
        """
        empty = (np.zeros((0, features.shape[1])), np.zeros(0), np.zeros(0))
        rows, dense, drops = map(np.concatenate, zip(empty, *self._seen, strict=True))
        loss = _chance(features, (rows, drops, dense), (bound.drops, bound.dense, ~bound.left))
        gain = _chance(features, (rows, -drops, 1 - dense), (-bound.drops, 1 - bound.dense, ~bound.left))
        return loss, gain


def _chance(
    features: np.ndarray, seen: tuple[np.ndarray, np.ndarray, np.ndarray], own: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """From what was `seen` (rows, changes, room for a change), brought to the rate of what its `own` candidate has shown."""
    rows, changes, room = seen
    there = room > 0
    chance = _logistic(features, rows[there], np.maximum(changes[there], 0) / room[there])
    changes, room, asked = own
    there = asked & (room > 0)
    rate = (1 + (np.maximum(changes[there], 0) / room[there]).sum()) / (1 + chance[there].sum())
    return np.clip(chance * rate, *_BOUNDS)


def _logistic(features: np.ndarray, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Fitted on rows (n, k) and shares (n,), for features (N, k) → (N,); Newton's method from the prior."""
    coefficients = np.zeros(features.shape[1] + 1)
    coefficients[:2] = prior = np.array([_CONSTANT, _SLOPE])
    held = np.r_[prior, np.zeros(len(coefficients) - 2)]
    rows = np.c_[np.ones(len(rows)), rows]
    for _ in range(12):
        chance = expit(rows @ coefficients)
        slope = rows.T @ (targets - chance) - _RIDGE * (coefficients - held)
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows + _RIDGE * np.eye(len(coefficients))
        step = np.linalg.solve(curvature, slope)
        coefficients = coefficients + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-3:
            break
    return expit(np.c_[np.ones(len(features)), features] @ coefficients)


def chosen_draw(bound: DrawnBound, loss: np.ndarray, gain: np.ndarray, margin: float) -> Draw:
    """The draw under which, if losses and gains have these chances (N,), the evidence is expected to grow the fastest that the
    mean drop is below the margin, or above it where it is expected well above.

    Questions are drawn in proportion to the standard deviation that is expected of their drops (Neyman 1934), mixed with what
    they can be worse by than predicted: the former makes payoffs vary least, the latter makes the largest one small, which
    limits what may be staked. Among several mixtures and stakes the one of the largest expected logarithm of a bet is taken
    (Kelly 1956).
    """
    dense, left = bound.dense, bound.left
    predicted = dense * loss - (1 - dense) * gain
    expected = (bound.drops.sum() + predicted[left].sum()) / len(dense)
    sign = 1.0 if expected <= _CLEARLY * margin else -1.0
    ahead = max(abs(margin - expected), _LEAST * margin)
    d, f, loss, gain = dense[left], predicted[left], loss[left] * (dense[left] > 0), gain[left] * (dense[left] < 1)
    spread = np.sqrt(np.maximum(d**2 * loss + (1 - d) ** 2 * gain - f**2, 1e-12))
    room = d - f if sign > 0 else f - d + 1
    outcomes = sign * np.stack([-f, d - f, d - 1 - f])
    chances = np.stack([1 - loss - gain, loss, gain])
    best, weights, stake = -math.inf, np.ones(len(d)), 0.25
    few = slice(None, None, -(-len(d) // _LOOKED_AT))
    for share in _SPREADS:
        mixed = (1 - share) * spread / spread.sum() + share * room / max(room.sum(), 1e-12)
        mixed = (1 - _RARELY) * mixed / mixed.sum() + _RARELY / len(d)
        payoff = outcomes[:, few] / mixed[few] / len(dense)
        unit = max((room / mixed).max() / len(dense) - ahead, 1e-12)
        bets = np.log1p(np.maximum(_STAKES[:, None, None] * ((ahead - payoff) / unit), -1 + 1e-9))
        growth = (bets * (mixed * chances)[:, few]).sum((1, 2)) / mixed[few].sum()
        if growth.max() > best:
            best, weights, stake = float(growth.max()), mixed, float(_STAKES[growth.argmax()])
    full = np.zeros(len(dense))
    full[left] = weights
    return Draw(full, predicted, (stake, 0.25) if sign > 0 else (0.25, stake))
