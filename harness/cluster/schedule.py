"""`Schedule`: which cell a worker gets next. Pure: what time it is, it is told.

Cells are grouped by model, since to load one costs more than many cells. Within a model the first cell that needs a fitted
recipe comes first, then the dense ones, which all others are compared with, then those that need no recipe, then the rest; and
of each kind the longest first, so that the last ones are short.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from harness.cells import Cell


class Ranks:
    """The rank of each cell of a run, in the order in which it is asked for them; the lowest first.

    Args:
        fitters: of a model's cells that need a fitted recipe, how many come first, so that it is fitted.
    """

    def __init__(self, fitters: int = 1) -> None:
        self.fitters = fitters
        self._fitted: dict[str, int] = defaultdict(int)

    def of(self, cell: Cell) -> int:
        """0 to 3."""
        if cell.is_dense:
            return 1
        if not cell.needs_fit:
            return 2
        self._fitted[cell.model] += 1
        return 0 if self._fitted[cell.model] <= self.fitters else 3


@dataclass
class _Queue:
    """A model's cells that wait, the next one last, and how many seconds they take together."""

    waiting: list[Cell] = field(default_factory=list)
    seconds: float = 0.0


class Schedule:
    """The cells of a run that are still to do.

    Args:
        seconds: how long a cell is expected to take.
        load: seconds to load a model.
    """

    def __init__(self, cells: Iterable[Cell], seconds: Callable[[Cell], float], load: Callable[[str], float]) -> None:
        self._seconds = {cell: seconds(cell) for cell in cells}
        self._load = load
        self._queues: dict[str, _Queue] = {}
        self._running: dict[Hashable, tuple[Cell, float]] = {}  # and until when
        ranks = Ranks()
        longest_first = sorted(self._seconds, key=lambda cell: -self._seconds[cell])
        ranked = sorted(longest_first, key=ranks.of)
        for cell in reversed(ranked):
            queue = self._queues.setdefault(cell.model, _Queue())
            queue.waiting.append(cell)
            queue.seconds += self._seconds[cell]

    def __len__(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues.values()) + len(self._running)

    def waiting(self, models: Iterable[str]) -> int:
        """How many cells of these models wait for a worker."""
        return sum(len(self._queues[model].waiting) for model in models if model in self._queues)

    def deal(self, worker: Hashable, holds: str | None, models: Iterable[str], now: float) -> Cell | None:
        """A cell for an idle worker that has a model in memory, or None: another of its model; else, of the `models` that it
        could load, one of those where most waits for each worker, if with its help that is done sooner.
        """
        self._running.pop(worker, None)
        model = holds if holds and self.waiting([holds]) else self._other(models, now)
        if model is None:
            return None
        queue = self._queues[model]
        cell = queue.waiting.pop()
        queue.seconds = queue.seconds - self._seconds[cell] if queue.waiting else 0.0
        load = 0.0 if model == holds else self._load(model)
        self._running[worker] = cell, now + load + self._seconds[cell]
        return cell

    def ended(self, worker: Hashable) -> None:
        """A worker's cell is done, or failed."""
        self._running.pop(worker, None)

    def put_back(self, worker: Hashable) -> Cell | None:
        """A worker is gone; its cell is the next of its model's."""
        running = self._running.pop(worker, None)
        if running is None:
            return None
        self.add(running[0], self._seconds[running[0]])
        return running[0]

    def add(self, cell: Cell, seconds: float) -> None:
        """One more, before all others of its model."""
        self._seconds[cell] = seconds
        queue = self._queues.setdefault(cell.model, _Queue())
        queue.waiting.append(cell)
        queue.seconds += seconds

    def _other(self, models: Iterable[str], now: float) -> str | None:
        """The model that needs one more worker most, if that makes its cells end sooner."""
        by_model: dict[str, list[float]] = defaultdict(list)
        for cell, until in self._running.values():
            by_model[cell.model].append(max(0.0, until - now))
        best: tuple[tuple[bool, float], str] | None = None
        for model in models:
            if not self.waiting([model]):
                continue
            queue, left = self._queues[model], by_model[model]
            worth = (True, queue.seconds)
            if members := len(left):
                # Dealt out longest first: the mean work of each, and up to the last cell, which only one is at.
                last = self._seconds[queue.waiting[0]]
                share = (sum(left) + queue.seconds + (members - 1) * last) / members
                if self._load(model) + self._seconds[queue.waiting[-1]] >= share:
                    continue
                worth = (False, share)
            best = max(best or (worth, model), (worth, model))
        return best and best[1]


def makespan(seconds: Mapping[Cell, float], workers: int, load: Callable[[str], float]) -> float:
    """Seconds until so many workers, all alike, are through with cells that take so many seconds each."""
    schedule, models = Schedule(seconds, seconds.__getitem__, load), list(dict.fromkeys(cell.model for cell in seconds))
    free: list[tuple[float, int]] = [(0.0, worker) for worker in range(min(workers, len(seconds)))]
    holds: dict[int, str] = {}
    last = 0.0
    while free:
        now, worker = heapq.heappop(free)
        schedule.ended(worker)
        if (cell := schedule.deal(worker, holds.get(worker), models, now)) is not None:
            end = now + seconds[cell] + (0.0 if holds.get(worker) == cell.model else load(cell.model))
            holds[worker], last = cell.model, max(last, end)
            heapq.heappush(free, (end, worker))
    return last
