"""What a worker and the driver say to each other, by turns: the worker always waits for the answer."""

import contextlib
import copy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.bench.bench import Bench
from harness.bench.outcome import Measured
from harness.cells import CellSettings
from harness.models.facts import ModelFacts


@dataclass(frozen=True)
class Setup:
    """What a worker is started with.

    Attributes:
        device: where it loads models, "cpu" or "cuda" or "auto"; None leaves it to the loader.
        threads: of torch; None leaves them as they are.
        processes: workers of the run on its machine, for the note beside a latency.
        margins: points, by suite, of a run that stops asking where a drop is decided; None where all questions are asked.
        commits: at which data sets of the hub are read.
        models, suites: whose identity it reports when it arrives.
        bench: what evaluates.
    """

    settings: CellSettings
    device: str | None = None
    threads: int | None = None
    processes: int = 1
    rerun: bool = False
    margins: Mapping[str, float | None] | None = None
    commits: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    bench: type[Bench] = Bench


@dataclass(frozen=True)
class Arrived:
    """A worker is there.

    Attributes:
        machine: its host's name.
        facts: what must be the same wherever the run's cells are measured, by what it is of.
        refusal: why this machine can measure none of them; empty if it can.
        needs: bytes of memory that each model takes there; None where nobody knows.
        room: bytes of memory of one card, or, without cards, of the machine.
        models: the run's, as they will run there.
        log: its file for what it prints.
    """

    machine: str
    facts: Mapping[str, str]
    refusal: str = ""
    needs: Mapping[str, int | None] = field(default_factory=dict)
    room: int = 0
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    log: str = ""


@dataclass(frozen=True)
class Ask:
    """A worker needs the driver's files: a call of one of `Files`' methods; `place` is "results" or "run"."""

    place: str
    call: str
    given: tuple[Any, ...]


@dataclass(frozen=True)
class Answer:
    """What such a call returned, or raised."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Told:
    """A line for whoever watches the run."""

    line: str


@dataclass(frozen=True)
class Ended:
    """A cell's end: what it gave, or the exception, and where that was raised."""

    measured: Measured | None = None
    error: Exception | None = None
    raised: str = ""

    @classmethod
    def by(cls, error: BaseException) -> "Ended":
        """Of an exception; of one that does not travel, its type and its words."""
        raised = "".join(traceback.format_exception(error))
        told: BaseException | None = None
        if all(isinstance(part, str | int | float | None) for part in (*error.args, *vars(error).values())):
            # It is sent as what it reduces to: its class, and these.
            with contextlib.suppress(Exception):
                told = copy.copy(error)
        if not isinstance(told, Exception):
            told = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error=told.with_traceback(None), raised=raised)


Message = Arrived | Ask | Told | Ended
