"""`Crew`: the workers of a run: how many on which machine, each as large as its models need; and which machines are fit."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fitprune.errors import FitPruneError
from harness.cells import Cell
from harness.cluster.machine import CODE, differing, own_code
from harness.cluster.messages import Arrived, Setup
from harness.models.devices import AUTO
from harness.telling import PATIENCE, tell

LOOK = 5.0  # seconds between two looks at which machines there are
_SHARE = {"card": 0.92, "machine": 0.8}  # of memory, what models may take
_ATTEMPTS = 3  # of workers to start on a machine


class WorkerLost(Exception):
    """A worker's process has ended. Says why, in one line."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, with what of it workers may take."""

    id: str
    name: str
    cpus: int
    gpus: int


class Machines(Protocol):
    """The cluster. A worker is whatever `start` returns; a call to it gives a token, and `take` what came of it."""

    def nodes(self) -> list[Node]:
        """The machines that are there now."""

    def start(self, node: Node, setup: Setup, cpus: int, gpus: int) -> Any:
        """A new worker with so many cores and cards for itself."""

    def arrive(self, worker: Any) -> Any:
        """Ask a worker what it is; a token."""

    def exchange(self, worker: Any, message: Any) -> Any:
        """Say something to a worker; a token for what it says next."""

    def ready(self, tokens: list[Any], seconds: float) -> list[Any]:
        """The tokens that something came of; waits so long for the first."""

    def take(self, token: Any) -> Any:
        """What came of a token. Raises WorkerLost."""

    def end(self, worker: Any) -> None:
        """End a worker, if it still is."""

    def last_lines(self, node: Node, log: str) -> list[str]:
        """What a worker wrote last."""

    def close(self) -> None:
        """Leave the cluster, or end it, if it was started for this run."""


@dataclass
class Member:
    """A worker of the run.

    Attributes:
        gpus: cards that it has; 0 on a CPU.
        token: of the message that is expected of it; None where it waits for the driver.
        model: which it holds.
    """

    number: int
    node: Node
    handle: Any
    cpus: int
    gpus: int
    token: Any = None
    arrived: Arrived | None = None
    cell: Cell | None = None
    model: str | None = None

    @property
    def machine(self) -> str:
        """Its machine's name."""
        return self.node.name


class Crew:
    """Starts workers, and ends them.

    Args:
        setup: of all workers; each is given its device, threads and number of neighbours.
        models: by name; what is asked of one machine is asked of all.
        device: as it was asked for; None takes cards where there are any.
    """

    def __init__(
        self,
        machines: Machines,
        setup: Setup,
        device: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.machines = machines
        self.setup = setup
        self.device = device
        self.clock = clock
        self.members: dict[int, Member] = {}
        self.sizes: Mapping[str, int] = dict.fromkeys(setup.models, 1)
        self.nodes: dict[str, Node] = {}
        self.reference: Arrived | None = None
        self._cores: dict[str, int] = {}
        self._numbers = itertools.count()
        self._looked = -math.inf
        self._failures: dict[str, int] = {}
        self._unfit: set[str] = set()

    def open(self) -> None:
        """Start one worker on each machine and see whether all are fit. Raises FitPruneError, in one line, if one is not."""
        self.look()
        if not self.nodes:
            cards = self.device is not None and self.device != "cpu"
            what = f"a GPU, which --device {self.device} asks for" if cards else "a CPU for workers"
            raise FitPruneError(f"no machine of the cluster has {what}; ray status shows what there is")
        for node in self.nodes.values():
            self._start(node, 1)
        since, told = self.clock(), False
        while waited := [member for member in self.members.values() if member.arrived is None]:
            ready = self.machines.ready([member.token for member in waited], 1.0)
            for member in waited:
                if member.token in ready:
                    self._first(member)
            if not told and self.clock() - since > 6 * PATIENCE:
                names = ", ".join(sorted({member.machine for member in waited}))
                tell(f"waiting for a worker on {names}: others have what it needs there, or it starts slowly")
                told = True
        self._measure()

    def _first(self, member: Member) -> None:
        """The first worker of a machine is there."""
        try:
            arrived: Arrived = self.machines.take(member.token)
        except WorkerLost as lost:
            raise FitPruneError(f"machine {member.machine}: no worker starts there: {lost}") from None
        if said := self._fault(arrived):
            raise FitPruneError(said)
        member.arrived, member.token = arrived, None

    def _fault(self, arrived: Arrived) -> str:
        """What is wrong with a machine, in one line; the first one that nothing is wrong with is the measure of others."""
        if arrived.refusal:
            return f"machine {arrived.machine}: {arrived.refusal}"
        if arrived.facts[CODE] != own_code()[CODE]:
            return f"machine {arrived.machine} has another fitprune-bench than this one; install the same on all machines"
        if self.reference is None:
            self.reference = arrived
        return differing(self.reference, arrived)

    def _measure(self) -> None:
        """How many cards, or cores, a worker needs, from what the machines have said."""
        assert self.reference is not None
        known = [member for member in self.members.values() if member.arrived]
        needs = self.reference.needs
        if any(node.gpus for node in self.nodes.values()):
            most = max(node.gpus for node in self.nodes.values())
            for model, need in needs.items():
                room = min(member.arrived.room for member in known if member.arrived)
                cards = most if self.device == AUTO else math.ceil((need or 1) / (room * _SHARE["card"]))
                if cards > most:
                    raise FitPruneError(
                        f"{model} takes some {(need or 0) / 1e9:.0f} GB, {cards} cards of {room / 1e9:.0f} GB, and no machine "
                        f"of the cluster has more than {most}"
                    )
                self.sizes = {**self.sizes, model: max(1, cards)}
        else:
            largest = max((need or 0 for need in needs.values()), default=0)
            for member in known:
                assert member.arrived is not None
                fit = int(member.arrived.room * _SHARE["machine"] // largest) if largest else member.node.cpus
                self._cores[member.node.id] = max(1, member.node.cpus // max(1, min(fit, member.node.cpus)))
        for member in known:
            if (member.gpus or 1) not in self.sizes.values() or member.cpus != self._cores_of(member.node):
                self.dismiss(member)

    def look(self) -> None:
        """See which machines there are."""
        self._looked = self.clock()
        found = [node for node in self.machines.nodes() if node.id not in self._unfit]
        if self.device == "cpu":
            found = [dataclasses.replace(node, gpus=0) for node in found]
        elif self.device is not None or any(node.gpus for node in found):
            found = [node for node in found if node.gpus]
        self.nodes = {node.id: node for node in found if node.cpus or node.gpus}

    def staff(self, waiting: Callable[[Iterable[str]], int]) -> None:
        """Start the workers for which there are cells and room, those for the largest models first.

        waiting: how many cells of some models wait.
        """
        if self.clock() - self._looked > LOOK:
            self.look()
        for size in sorted(set(self.sizes.values()), reverse=True):
            models = self.models_of(size)
            wanted = waiting(models) - sum(
                member.cell is None for member in self.members.values() if self._size(member) == size
            )
            for node in list(self.nodes.values()):
                while wanted > 0 and self._room(node) >= size:
                    self._start(node, size)
                    wanted -= 1
            if wanted > 0:
                return  # what is left of the cards is kept for these

    def capacity(self) -> int:
        """How many workers for the largest model there is room for."""
        size = max(self.sizes.values())
        return sum(node.gpus // size if node.gpus else node.cpus // self._cores_of(node) for node in self.nodes.values())

    def models_of(self, size: int) -> list[str]:
        """The models whose workers have so many cards."""
        return [model for model, cards in self.sizes.items() if cards == size]

    def models_for(self, member: Member) -> list[str]:
        """The models that a worker could load."""
        return self.models_of(self._size(member))

    def _size(self, member: Member) -> int:
        return member.gpus or 1

    def _room(self, node: Node) -> int:
        """How many cards, or workers on CPUs, a machine has room for."""
        there = [member for member in self.members.values() if member.node.id == node.id]
        if node.gpus:
            return node.gpus - sum(member.gpus for member in there)
        return node.cpus // self._cores_of(node) - len(there)

    def _cores_of(self, node: Node) -> int:
        return max(1, node.cpus // node.gpus) if node.gpus else self._cores.get(node.id, 1)

    def _start(self, node: Node, size: int) -> None:
        cores = self._cores_of(node)
        setup = dataclasses.replace(
            self.setup,
            device=AUTO if size > 1 else "cuda" if node.gpus else "cpu",
            threads=cores,
            processes=max(1, node.gpus // size) if node.gpus else max(1, node.cpus // cores),
        )
        gpus = size if node.gpus else 0
        handle = self.machines.start(node, setup, 1 if gpus else cores, gpus)
        member = Member(next(self._numbers), node, handle, cores, gpus, self.machines.arrive(handle))
        self.members[member.number] = member

    def accept(self, member: Member, arrived: Arrived) -> None:
        """A worker is there; if its machine is not fit, none of it is taken."""
        member.arrived = arrived
        if said := self._fault(arrived):
            tell(f"{said}; it is left out")
            self._leave_out(member.node)

    def lost(self, member: Member) -> bool:
        """A worker is gone. Returns whether its machine is still there."""
        self.dismiss(member)
        self.look()
        there = member.node.id in self.nodes
        if there and member.arrived is None:
            self._failures[member.node.id] = self._failures.get(member.node.id, 0) + 1
            if self._failures[member.node.id] >= _ATTEMPTS:
                tell(f"machine {member.machine}: {_ATTEMPTS} workers ended before they had begun; it is left out")
                self._leave_out(member.node)
        return there

    def _leave_out(self, node: Node) -> None:
        self._unfit.add(node.id)
        self.nodes.pop(node.id, None)
        for member in [member for member in self.members.values() if member.node.id == node.id and member.cell is None]:
            self.dismiss(member)

    def dismiss(self, member: Member) -> None:
        """End a worker."""
        self.members.pop(member.number, None)
        self.machines.end(member.handle)

    def close(self) -> None:
        """End all of them."""
        for member in list(self.members.values()):
            self.dismiss(member)
        self.machines.close()
