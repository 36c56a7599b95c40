"""`Search`: candidates from mild to harsh, each asked until it is known whether it loses too much, under one error budget."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.statistics.drawn import DrawnBound
from harness.statistics.foretelling import Foreteller, chosen_draw
from harness.statistics.spending import ErrorBudget

ERROR = 0.05  # chance that anything is certified that loses more than is allowed
LOSES = 0.05  # chance at which a candidate is given up that does not: it costs nothing but that candidate
GROWTH = 8  # a stretch adds an eighth of what was asked


@dataclass(frozen=True)
class Candidate:
    """One pruner at one budget.

    Attributes:
        name: unique in a search.
        chain: whose candidates follow one another from mild to harsh: the method.
        saved: what the search makes large, as a share.
    """

    name: str
    chain: str
    saved: float


@dataclass(frozen=True)
class Suite:
    """A suite's questions as the dense model answered them.

    Attributes:
        dense: (N,) scores of 0-1.
        features: (N, k) of the order of 1, the first the larger the less certain the answer is.
        margin: the mean drop that is allowed, as a share.
    """

    name: str
    dense: np.ndarray
    features: np.ndarray
    margin: float


@dataclass(frozen=True)
class Shown:
    """What the questions of one suite have shown of a candidate: drops as shares. `low` and `high` hold for all candidates and
    suites of the search at once, with 95 % confidence, however the search chose among them.
    """

    suite: str
    asked: int
    questions: int
    drop: float
    low: float
    high: float
    margin: float


@dataclass(frozen=True)
class Tried:
    """A candidate that was tested, at its level of the error budget: certified, or given up on the last suite of `shown`."""

    candidate: Candidate
    certified: bool
    level: float
    shown: list[Shown]


@dataclass(frozen=True)
class Progress:
    """Where a search is."""

    candidate: Candidate
    suite: str
    asked: int
    questions: int
    best: Candidate | None


Ask = Callable[[Candidate, str, np.ndarray], np.ndarray]
"""A candidate's scores (n,) on the questions of a suite at these places, in their order."""


@dataclass
class Search:
    """Finds, of the certified candidates, the one that saves most.

    Chains are gone through one after the other, each from its mildest candidate that saves more than the best so far, to the
    first that is not certified. No order of drops is assumed: a chain that is not ordered ends early, and errs no more often.

    Args:
        ask: asks a candidate; called with questions that it was not asked before.
        first: questions of a stretch at least.
        listen: told where the search is, before each stretch.
    """

    suites: Sequence[Suite]
    candidates: Sequence[Candidate]
    ask: Ask
    seed: int = 0
    first: int = 32
    error: float = ERROR
    listen: Callable[[Progress], None] = lambda _: None
    best: Candidate | None = None
    tried: list[Tried] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tellers = {suite.name: Foreteller() for suite in self.suites}
        # Per suite and question: how many candidates it was asked of, and what they lost and gained on it.
        self._seen = {suite.name: np.zeros((3, len(suite.dense))) for suite in self.suites}

    def run(self) -> Candidate | None:
        """The certified candidate that saves most; None if none is certified."""
        chains: dict[str, list[Candidate]] = {}
        for candidate in sorted(self.candidates, key=lambda candidate: candidate.saved):
            chains.setdefault(candidate.chain, []).append(candidate)
        budget = ErrorBudget(self.error, len(chains))
        for name in dict.fromkeys(candidate.chain for candidate in self.candidates):
            level = budget.level()
            failed = not all(self._certified(candidate, level) for candidate in self._better(chains[name]))
            budget.close(level if failed else 0.0)
        return self.best

    def _better(self, chain: Sequence[Candidate]) -> Iterator[Candidate]:
        return (candidate for candidate in chain if self.best is None or candidate.saved > self.best.saved)

    def _certified(self, candidate: Candidate, level: float) -> bool:
        shown: list[Shown] = []
        certified = True
        for suite in self._doubtful_first(candidate):
            found, certified = self._tested(candidate, suite, level)
            shown.append(found)
            if not certified:
                break
        self.tried.append(Tried(candidate, certified, level, shown))
        if certified:
            self.best = candidate
        return certified

    def _doubtful_first(self, candidate: Candidate) -> list[Suite]:
        """The suites, those first on which the candidate before lost most of what is allowed."""
        before: Mapping[str, float] = {}
        if self.tried and self.tried[-1].candidate.chain == candidate.chain:
            before = {shown.suite: shown.drop / shown.margin for shown in self.tried[-1].shown}
        return sorted(self.suites, key=lambda suite: -before.get(suite.name, 0.0))

    def _tested(self, candidate: Candidate, suite: Suite, level: float) -> tuple[Shown, bool]:
        bound, teller, seen = DrawnBound(suite.dense), self._tellers[suite.name], self._seen[suite.name]
        # Of each candidate and suite its own: what others were asked says nothing of which question comes next.
        text = repr((self.seed, candidate.name, suite.name)).encode()
        rng = np.random.default_rng(list(hashlib.sha256(text).digest()))
        features = np.c_[suite.features, (seen[1:] / (1 + seen[0])).T]
        certified = lost = False
        while not (certified or lost):
            self.listen(Progress(candidate, suite.name, bound.asked, len(suite.dense), self.best))
            how = chosen_draw(bound, *teller.chances(features, bound), suite.margin)
            places = bound.draw(how, max(self.first, bound.asked // GROWTH), rng)
            drops = suite.dense[places] - self.ask(candidate, suite.name, places)
            bound.add(how, places, drops)
            teller.take_in(features[places], suite.dense[places], drops)
            seen[:, places] += np.stack([np.ones(len(places)), np.maximum(drops, 0), np.maximum(-drops, 0)])
            certified = bound.evidence_below(suite.margin) >= math.log(1 / level)
            lost = bound.evidence_above(suite.margin) >= math.log(1 / LOSES)
        low, high = bound.interval(ERROR / (len(self.candidates) * len(self.suites)))
        found = Shown(suite.name, bound.asked, len(suite.dense), bound.estimate(), low, high, suite.margin)
        return found, certified
