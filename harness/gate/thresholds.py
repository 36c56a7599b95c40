"""What a cell may lose: `1.0`, `gqa:1.0,pope:0.5`, `latency:10%`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from fitprune.errors import FitPruneError, unknown_name

LATENCY = "latency"


@dataclass(frozen=True)
class Thresholds:
    """Points per suite, points for all others, and percent of prefill time; None where there is no limit."""

    everywhere: float | None = None
    suites: dict[str, float] = field(default_factory=dict)
    latency: float | None = None

    @classmethod
    def parse(cls, option: str, text: str, default: float | None = None, *, latency: bool = False) -> "Thresholds":
        """Read a comma list of POINTS, SUITE:POINTS and, with `latency`, latency:P%. A later entry replaces an earlier one.

        Raises FitPruneError, in one line.
        """
        suites: dict[str, float] = {}
        slower = None
        for entry in (part.strip() for part in text.split(",")):
            name, colon, value = (part.strip() for part in entry.rpartition(":"))
            if latency and name == LATENCY:
                slower = _percent(option, entry, value)
            elif colon:
                if not name:
                    raise FitPruneError(f"--{option} {entry} names no suite; it takes POINTS or SUITE:POINTS")
                suites[name] = _points(option, entry, value)
            else:
                default = _points(option, entry, value)
        return cls(default, suites, slower)

    def points(self, suite: str) -> float | None:
        """What a cell on this suite may lose."""
        return self.suites.get(suite, self.everywhere)

    def check(self, suites: Iterable[str]) -> None:
        """Raise FitPruneError, with the nearest names, for a suite that does not exist."""
        suites = list(suites)
        for name in self.suites:
            if name not in suites:
                raise unknown_name("suite", name, suites)

    def __str__(self) -> str:
        parts = [] if self.everywhere is None else [f"{self.everywhere:g}"]
        parts += [f"{suite}:{points:g}" for suite, points in self.suites.items()]
        parts += [] if self.latency is None else [f"{LATENCY}:{self.latency:g}%"]
        return ",".join(parts)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _points(option: str, entry: str, value: str) -> float:
    if not 0 <= _number(value) <= 100:
        raise FitPruneError(f"--{option} {entry} is not a number of points from 0 to 100")
    return float(value)


def _percent(option: str, entry: str, value: str) -> float:
    number = _number(value.removesuffix("%"))
    if not value.endswith("%") or not 0 <= number < math.inf:
        raise FitPruneError(f"--{option} {entry} is not a share of the prefill time in percent, such as {LATENCY}:10%")
    return number
