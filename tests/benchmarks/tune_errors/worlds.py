"""Made-up suites whose true drops are known, with predictors that are worth something, nothing, or the contrary."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.statistics.drawn import DrawnBound
from harness.statistics.foretelling import Foreteller, chosen_draw
from harness.tuning.search import Candidate, Search, Suite

Random = np.random.Generator
Made = tuple[np.ndarray, np.ndarray]
"""Dense scores (N,) and drops (N,)."""


def right_or_wrong(rng: Random, count: int, lost: float, gained: float) -> Made:
    """Seven in ten questions are right; shares of all are lost and gained."""
    dense = (rng.random(count) < 0.7).astype(float)
    drops = np.zeros(count)
    for value, share in ((1.0, lost), (0.0, gained)):
        fits = np.flatnonzero(dense == value)
        drops[rng.choice(fits, min(len(fits), round(share * count)), replace=False)] = 2 * value - 1
    return dense, drops


def graded(rng: Random, count: int, lost: float, gained: float) -> Made:
    """Scores in steps of a third; many differ by a step, and a few are lost as a whole."""
    dense = rng.choice([0.0, 1 / 3, 2 / 3, 1.0], count, p=[0.2, 0.1, 0.2, 0.5])
    pruned = np.clip(dense + rng.choice([-1, 0, 1], count, p=[gained, 1 - 2 * gained, gained]) / 3, 0, 1)
    pruned[rng.random(count) < lost] = 0
    return dense, dense - pruned


def unequal_images(rng: Random, count: int, lost: float, gained: float) -> Made:
    """Images of one to sixty questions, which are lost or gained as a whole."""
    sizes = rng.integers(1, 61, count)
    image = np.repeat(np.arange(count), sizes)[:count]
    kind = rng.choice([0, 1, -1], count, p=[1 - lost - gained, lost, gained])[image]
    dense = (rng.random(count) < 0.7).astype(float)
    return dense, np.where(kind > 0, dense, 0.0) - np.where(kind < 0, 1 - dense, 0.0)


WORLDS: dict[str, Callable[[Random, int, float, float], Made]] = {
    "right or wrong": right_or_wrong,
    "graded": graded,
    "unequal images": unequal_images,
}


def informed(rng: Random, dense: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """A feature that foretells most differences."""
    return 3 * (np.abs(drops) > 0) * (rng.random(len(drops)) < 0.7) + rng.normal(size=len(drops)) / 2


def noise(rng: Random, dense: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """A feature that foretells nothing."""
    return rng.normal(size=len(drops))


def adversary(rng: Random, dense: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """A feature that names as certain the very questions that are lost, and as doubtful those that are gained."""
    return np.where(drops > 0, -4.0, np.where(drops < 0, 4.0, 0.0))


PREDICTORS = {"informed": informed, "noise": noise, "adversary": adversary}


@dataclass(frozen=True)
class Case:
    """A world of a size, and a predictor in it."""

    world: str
    predictor: str
    count: int
    lost: float
    gained: float

    def __str__(self) -> str:
        return f"{self.count} questions, {self.world}, {self.lost:g} lost, {self.gained:g} gained; {self.predictor}"

    def made(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Dense scores, drops and features of one suite."""
        rng = np.random.default_rng(seed)
        dense, drops = WORLDS[self.world](rng, self.count, self.lost, self.gained)
        return dense, drops, np.c_[PREDICTORS[self.predictor](rng, dense, drops), rng.normal(size=self.count)]


def followed(
    dense: np.ndarray, drops: np.ndarray, features: np.ndarray, margin: float, rng: Random, first: int = 16, growth: int = 8
) -> Iterator[DrawnBound]:
    """A bound after each stretch of one candidate, up to the last question."""
    bound, teller = DrawnBound(dense), Foreteller()
    while bound.left.any():
        how = chosen_draw(bound, *teller.chances(features, bound), margin)
        places = bound.draw(how, max(first, bound.asked // growth), rng)
        bound.add(how, places, drops[places])
        teller.take_in(features[places], dense[places], drops[places])
        yield bound


def errs(case: Case, seed: int, level: float) -> tuple[bool, bool]:
    """Whether a margin just below the true drop is ever passed, and one just above it ever failed, at this level."""
    dense, drops, features = case.made(seed)
    truth, enough = float(drops.mean()), math.log(1 / level)
    passed = failed = False
    for bound in followed(dense, drops, features, max(truth, 0.005), np.random.default_rng([seed, 1])):
        passed |= bound.evidence_below(truth - 1e-6) >= enough
        failed |= bound.evidence_above(truth + 1e-6) >= enough
    return passed, failed


def family(case: Case, seed: int) -> tuple[bool, int]:
    """A search over three methods with four budgets each on two suites, whose drops go from nothing to twice what is lost. The
    margin is just below the drop of the third budgets on one of the suites: whether anything is certified that loses more than
    that, and how many candidates are certified.
    """
    rng = np.random.default_rng([seed, 2])
    suites, drops = [], {}
    candidates = [Candidate(f"{method}-{step}", method, step / 4) for method in "abc" for step in (1, 2, 3, 4)]
    for name, of in (("one", 1.0), ("other", 0.8)):
        made = {
            candidate.name: Case(
                case.world, case.predictor, case.count, case.lost * of * step * (step - 1) / 6, case.gained
            ).made(seed)[:2]
            for candidate in candidates
            for step in (int(candidate.name[-1]),)
        }
        dense = made["a-1"][0]
        drops |= {(candidate, name): dense - np.clip(own[0] - own[1], 0, 1) for candidate, own in made.items()}
        worst = drops["a-3", name]
        suites.append(Suite(name, dense, np.c_[PREDICTORS[case.predictor](rng, dense, worst), rng.normal(size=case.count)], 0))
    margin = max(float(drops["a-3", "one"].mean()) - 1e-6, 0.002)
    suites = [Suite(suite.name, suite.dense, suite.features, margin) for suite in suites]

    def ask(candidate: Candidate, suite: str, places: np.ndarray) -> np.ndarray:
        dense = next(one.dense for one in suites if one.name == suite)
        return (dense - drops[candidate.name, suite])[places]

    search = Search(suites, candidates, ask, seed=seed, first=16)
    search.run()
    certified = [tried.candidate.name for tried in search.tried if tried.certified]
    wrong = [name for name in certified if any(drops[name, suite.name].mean() > margin for suite in suites)]
    return bool(wrong), len(certified)
