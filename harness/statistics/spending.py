"""`ErrorBudget`: one chance of error, shared out over all candidates of a search."""


class ErrorBudget:
    """The chance, over a whole search, that anything is certified that loses more than is allowed.

    A test of a candidate takes a level. A candidate that is certified gives it back; one that is not has used it up. Each true
    null that was tested before the first error has failed, so its level is gone, and the next one is tested at what is left at
    most: all these levels, with that of the error, add up to the budget at most, and by the union bound so does the chance of
    any error. Which candidate is tested next, and what decides that, does not matter, as long as each test is valid given all
    that went before. For one chain this is the fixed sequence (Maurer, Hothorn and Lehmacher 1995) of learn then test
    (Angelopoulos et al. 2021, arXiv 2110.01052); that levels return is the fallback of Tian and Ramdas 2021, arXiv 1910.04900.

    One level serves a candidate on any number of suites: it is certified where every suite says so, so that an error needs the
    very suite to err on which it loses too much (Berger 1982, Technometrics 24(4), the intersection-union test).

    Args:
        error: in all.
        chains: sequences of candidates, each of which ends with its first failure.
    """

    def __init__(self, error: float, chains: int) -> None:
        self.left = error
        self._chains = chains

    def level(self) -> float:
        """What the next chain's tests take, one after the other: an equal share of what is left for each chain to come."""
        return self.left / self._chains

    def close(self, spent: float = 0.0) -> None:
        """A chain has ended: at a failure of this level, or with none."""
        self.left -= spent
        self._chains -= 1
