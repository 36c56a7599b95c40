"""What a cell may lose: `1.0`, `gqa:1.0,pope:0.5`, `latency:10%`."""

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fitprune.arguments import number
from fitprune.errors import unknown_name

LATENCY = "latency"


@dataclass(frozen=True)
class Thresholds:
    """Points per suite, points for all others, and percent of prefill time; None where there is no limit."""

    everywhere: float | None = None
    suites: dict[str, float] = field(default_factory=dict)
    latency: float | None = None

    @classmethod
    def parse(cls, text: str, latency: bool = False) -> "Thresholds":
        """Read a comma list of POINTS, SUITE:POINTS and, with `latency`, latency:P%.

        Raises argparse.ArgumentTypeError, also where two entries say what the same thing may lose.
        """
        read = cls()
        said: dict[str, str] = {}
        for entry in (part.strip() for part in text.split(",")):
            name, colon, value = (part.strip() for part in entry.rpartition(":"))
            if latency and name == LATENCY:
                read = replace(read, latency=_percent(entry, value))
            elif not colon:
                read = replace(read, everywhere=_points(entry, value))
            elif name:
                read.suites[name] = _points(entry, value)
            else:
                raise argparse.ArgumentTypeError(f"{entry} names no suite; it takes POINTS or SUITE:POINTS")
            if name in said:
                what = name or "all suites"
                raise argparse.ArgumentTypeError(f"{said[name]} and {entry} both set what {what} may lose; keep one")
            said[name] = entry
        return read

    def otherwise(self, points: float) -> "Thresholds":
        """The same, with what a cell may lose on the suites of which nothing is said."""
        return replace(self, everywhere=points) if self.everywhere is None else self

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


def _points(entry: str, value: str) -> float:
    if not 0 <= number(value) <= 100:
        raise argparse.ArgumentTypeError(f"{entry} is not a number of points from 0 to 100")
    return number(value)


def _percent(entry: str, value: str) -> float:
    percent = number(value.removesuffix("%"))
    if not value.endswith("%") or not 0 <= percent < math.inf:
        raise argparse.ArgumentTypeError(f"{entry} is not a share of the prefill time in percent, such as {LATENCY}:10%")
    return percent
