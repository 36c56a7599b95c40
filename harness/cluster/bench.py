"""`ClusterBench`: cells are measured on the cluster, and come in as they end; what they gave is kept where this process is."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from harness.bench.outcome import Measured
from harness.bench.planning import Planned
from harness.cells import Cell
from harness.cluster.crew import Crew
from harness.cluster.fleet import Finished, Fleet
from harness.cluster.schedule import Schedule, makespan
from harness.models.facts import ModelFacts
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.words import duration

LOAD = 5.0  # seconds to load a model of which nothing is known
BYTES_A_SECOND = 1e9  # of weights, from a disk


class ClusterBench:
    """Has cells measured by workers. Its machines are fit when it is made.

    Args:
        seconds: how long a cell is expected to take.
        results: the results folder, which this process alone writes.
        shared: of the run.
    """

    def __init__(self, crew: Crew, seconds: Callable[[Cell], float], results: Store, shared: RunFolder) -> None:
        self.crew = crew
        self.seconds = seconds
        self.results = results
        self.shared = shared
        self._fleet: Fleet | None = None
        self._ended: dict[Cell, Finished] = {}

    def as_they_end(self, cells: Iterable[Cell]) -> Iterator[Cell]:
        """The cells, each as soon as it has ended: `measuring` has then what it gave. Raises FitPruneError where no machine
        is left.
        """
        fleet = self._begin(dict.fromkeys(cells))
        while (finished := fleet.next()) is not None:
            self._ended[finished.cell] = finished
            yield finished.cell

    @contextlib.contextmanager
    def measuring(self, cell: Cell) -> Iterator[Measured]:
        """What a cell gave, as `Bench.measuring` has it. One that has not ended yet is waited for."""
        finished = self._ended.pop(cell, None) or self._now(cell)
        try:
            if finished.error is not None:
                raise finished.error
            assert finished.measured is not None
            yield finished.measured
            self.results.journal(finished.measured.result.key).remove()
        finally:
            finished.give_up()

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """The facts of the run's models, where they run."""
        assert self.crew.reference is not None
        return self.crew.reference.models

    def price(self, planned: Sequence[Planned]) -> str:
        """How long what is planned will take here, in words."""
        left = [plan for plan in planned if plan.state in ("begun", "to run")]
        seconds = {plan.cell: plan.seconds for plan in left if plan.seconds is not None}
        workers, machines = self.crew.capacity(), len(self.crew.nodes)
        taken = duration(makespan(seconds, workers, self._load)) if len(seconds) == len(left) else "unknown"
        return f"time on the cluster, with {workers} workers on {machines} machine{'s' * (machines != 1)}: {taken}"

    def where(self) -> str:
        """Where the run stands, in words."""
        return "" if self._fleet is None else self._fleet.where()

    def close(self) -> None:
        """End the workers."""
        for finished in self._ended.values():
            finished.give_up()
        if self._fleet is not None:
            self._fleet.close()
        self.crew.close()

    def _now(self, cell: Cell) -> Finished:
        """A cell that is asked for out of turn, as by a plug-in that runs failed tests again."""
        fleet = self._fleet or self._begin(())
        fleet.schedule.add(cell, self.seconds(cell))
        while (finished := fleet.next()) is not None and finished.cell != cell:
            self._ended[finished.cell] = finished
        assert finished is not None
        return finished

    def _begin(self, cells: Iterable[Cell]) -> Fleet:
        schedule = Schedule(cells, self.seconds, self._load)
        self._fleet = Fleet(self.crew, schedule, {"results": self.results.files, "run": self.shared.files})
        return self._fleet

    def _load(self, model: str) -> float:
        needs = self.crew.reference.needs.get(model) if self.crew.reference else None
        return LOAD + (needs or 0) / BYTES_A_SECOND
