"""`Section` and `Row`: figures that belong together, each of which is measured by itself; `Measured`, what a row gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.sizes import Sizes


@dataclass(frozen=True)
class Measured:
    """What a row gives.

    Attributes:
        figure: the one that the row is about; None where the method cannot do it.
        beside: further figures and circumstances, for people.
        raw: all numbers, as JSON.
    """

    figure: float | None
    beside: str
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: unique in its section.
        seconds: how long it takes on an H100, roughly.
        unit: the figure's format.
        limit: what the figure is wanted to be, at most, or with `least` at least; None where nothing is.
    """

    name: str
    seconds: float
    measure: Callable[[Bench], Measured]
    unit: str = "{:.2f}"
    limit: float | None = None
    least: bool = False

    @property
    def wanted(self) -> str:
        return "" if self.limit is None else f"{'≥' if self.least else '≤'} {self.unit.format(self.limit)}"

    def met(self, figure: float) -> bool:
        """Whether a figure is what is wanted."""
        return self.limit is None or (figure >= self.limit if self.least else figure <= self.limit)


@dataclass(frozen=True)
class Section:
    """Rows of one kind; `title` says what their figure is."""

    name: str
    title: str
    rows: Callable[[Sizes], list[Row]]
