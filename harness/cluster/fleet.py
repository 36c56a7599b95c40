"""`Fleet`: has the cells of a run measured by its workers, and hands on what they gave as it comes in.

One thread does it all, that of the caller: workers wait meanwhile, each with what it has to say.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fitprune.errors import FitPruneError
from harness.bench.outcome import Measured
from harness.cells import Cell
from harness.cluster.crew import Crew, Member, WorkerLost
from harness.cluster.desk import Desk
from harness.cluster.messages import Answer, Arrived, Ask, Ended, Told
from harness.cluster.schedule import Schedule
from harness.storage.files import Files
from harness.telling import tell

DEATHS = 3  # of a cell's workers, then it fails
ABANDONED = 600.0  # seconds without any machine, then the run ends
_SOON, _LATER = 0.05, 1.0  # seconds to wait for a worker's word


class RaisedElsewhere(Exception):
    """Where in a worker an exception was raised: its cause here, so that its traceback is printed."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass
class Finished:
    """A cell that has ended: measured, or with an error. Its locks are held until `give_up`."""

    cell: Cell
    measured: Measured | None
    error: Exception | None
    give_up: Callable[[], None]


class Fleet:
    """Measures cells.

    Args:
        places: the driver's files, "results" and "run".
        schedule: the cells.
    """

    def __init__(
        self, crew: Crew, schedule: Schedule, places: Mapping[str, Files], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.crew = crew
        self.schedule = schedule
        self.clock = clock
        self.desk = Desk(places, clock)
        self._finished: deque[Finished] = deque()
        self._deaths: Counter[Cell] = Counter()
        self._alone_since: float | None = None

    def next(self) -> Finished | None:
        """The next cell that has ended; None when all have. Raises FitPruneError where no machine is left."""
        while not self._finished and len(self.schedule):
            self.crew.staff(self.schedule.waiting)
            self._deal()
            self._require_machines()
            expected = {member.token: member for member in self.crew.members.values() if member.token is not None}
            wait = _SOON if self.desk.waiting else _LATER
            if expected:
                for token in self.crew.machines.ready(list(expected), wait):
                    self._hear(expected[token])
            else:
                time.sleep(wait)
            for number in self.desk.granted():
                self._say(self.crew.members[number], Answer())
        return self._finished.popleft() if self._finished else None

    def where(self) -> str:
        """`2 machines, 8 workers, 7 at work`."""
        members = [member for member in self.crew.members.values() if member.arrived]
        machines, busy = len({member.node.id for member in members}), sum(member.cell is not None for member in members)
        return f"{machines} machine{'s' * (machines != 1)}, {len(members)} worker{'s' * (len(members) != 1)}, {busy} at work"

    def close(self) -> None:
        """Give up what its workers and the cells that nobody took have locked."""
        for finished in self._finished:
            finished.give_up()
        for number in self.crew.members:
            self.desk.dismiss(number)()

    def _deal(self) -> None:
        """Give cells to the workers that have none; one without a use makes room for workers of another size."""
        for member in list(self.crew.members.values()):
            if member.arrived is None or member.cell is not None:
                continue
            models = self.crew.models_for(member)
            member.cell = self.schedule.deal(member.number, member.model, models, self.clock())
            if member.cell is not None:
                member.model = member.cell.model
                self._say(member, member.cell)
            elif self.schedule.waiting(set(self.crew.sizes) - set(models)):
                self.crew.dismiss(member)

    def _require_machines(self) -> None:
        """Raise FitPruneError when there has been no machine for long."""
        if self.crew.nodes or self.crew.members:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = self.clock()
            tell("no machine of the cluster is left; waiting for one")
        elif self.clock() - self._alone_since > ABANDONED:
            raise FitPruneError("no machine of the cluster is left; what was answered is kept: run it again")

    def _say(self, member: Member, message: object) -> None:
        member.token = self.crew.machines.exchange(member.handle, message)

    def _hear(self, member: Member) -> None:
        """A worker has said something, or is gone."""
        token, member.token = member.token, None
        try:
            message = self.crew.machines.take(token)
        except WorkerLost as lost:
            self._lost(member, str(lost))
            return
        if isinstance(message, Arrived):
            self.crew.accept(member, message)
        elif isinstance(message, Ask):
            if (answer := self.desk.answer(member.number, message)) is not None:
                self._say(member, answer)
        elif isinstance(message, Told):
            tell(message.line)
            self._say(member, Answer())
        else:
            self._ended(member, message)

    def _ended(self, member: Member, ended: Ended) -> None:
        assert member.cell is not None
        if ended.error is not None:
            ended.error.__cause__ = RaisedElsewhere(ended.raised)
        give_up = self.desk.dismiss(member.number)
        self._finished.append(Finished(member.cell, ended.measured, ended.error, give_up))
        self.schedule.ended(member.number)
        member.cell = None

    def _lost(self, member: Member, why: str) -> None:
        """A worker is gone: another takes its cell, from its last batch on, unless three have died of it."""
        there = self.crew.lost(member)
        self.desk.dismiss(member.number)()
        cell = member.cell
        if cell is None:
            return
        self._deaths[cell] += there  # a machine that is gone is not the cell's fault
        if self._deaths[cell] < DEATHS:
            self.schedule.put_back(member.number)
            gone = "died" if there else "is gone with its machine"
            tell(
                f"the worker on {member.machine} at {cell.label()} on {cell.suite} {gone}; another goes on from its last batch"
            )
            return
        self.schedule.ended(member.number)
        log = member.arrived.log if member.arrived else ""
        said = " | ".join(self.crew.machines.last_lines(member.node, log)) or why
        error = FitPruneError(
            f"{cell.label()} on {cell.suite}: {DEATHS} workers died of it, the last on {member.machine}: {said}"
        )
        self._finished.append(Finished(cell, None, error, lambda: None))
