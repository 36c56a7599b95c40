"""`RayMachines`: the machines of a Ray cluster, and how one is found."""

import contextlib
import socket
import warnings
from typing import Any

from fitprune.errors import FitPruneError, one_line
from harness.cluster.crew import Node, WorkerLost
from harness.cluster.engines import CLIENT, FOUND, LOCAL, address_of, check_engine, load_ray
from harness.cluster.messages import Setup
from harness.cluster.worker import Process, last_lines
from harness.cores import available_cores

ANSWERS_WITHIN = 10.0  # seconds


def connect(engine: str) -> "RayMachines":
    """The cluster that an engine names: one that is started here for the run, the one that this machine is part of, or one
    elsewhere. Raises FitPruneError, in one line, where none answers.
    """
    check_engine(engine)
    ray = load_ray()
    if ray.is_initialized():
        return RayMachines(ends=False)
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}
    try:
        if engine == LOCAL:
            ray.init(
                address="local", num_cpus=available_cores(), include_dashboard=False, _node_ip_address="127.0.0.1", **quiet
            )
        elif engine == FOUND:
            _require_answer(_found(), engine)
            ray.init(address="auto", **quiet)
        else:
            _require_answer(engine.removeprefix(CLIENT), engine)
            with warnings.catch_warnings(action="ignore"):  # Ray's, on an address that does not answer, beside its error
                ray.init(address=engine, **quiet)
    except FitPruneError:
        raise
    except Exception as error:  # Ray raises what it finds, its own and gRPC's
        said = one_line(error)
        if "ray[client]" in said:
            raise FitPruneError(f"--engine {engine} needs Ray's client: pip install 'ray[client]'") from None
        token = "; one that asks for a token takes who has its ~/.ray/auth_token" if engine.startswith(CLIENT) else ""
        raise FitPruneError(f"--engine {engine}: no Ray cluster answers: {type(error).__name__}: {said[:200]}{token}") from None
    return RayMachines()


def _found() -> str:
    """The address of the cluster that this machine is part of."""
    from ray._private.services import canonicalize_bootstrap_address

    address = canonicalize_bootstrap_address("auto")
    if address is None:
        raise FitPruneError(
            f"--engine {FOUND}: this machine is part of no Ray cluster; 'ray start' makes it one, or name its head"
        )
    return address


def _require_answer(address: str, engine: str) -> None:
    """Raise FitPruneError where nobody listens: Ray itself would wait for minutes."""
    try:
        socket.create_connection(address_of(address, engine), timeout=ANSWERS_WITHIN).close()
    except OSError as error:
        raise FitPruneError(
            f"--engine {engine}: {address} does not answer ({one_line(error)}); is the cluster's head there, "
            "and its port open to this machine?"
        ) from None


class RayMachines:
    """Workers are Ray's actors, each bound to a machine. Ray starts none again: that is the driver's business.

    Args:
        ends: whether this process's connection ends with the run.
    """

    def __init__(self, ends: bool = True) -> None:
        self.ends = ends
        self._actor = load_ray().remote(Process)

    def nodes(self) -> list[Node]:
        found = [node for node in load_ray().nodes() if node["Alive"]]
        return [
            Node(
                node["NodeID"],
                node["NodeManagerHostname"],
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for node in sorted(found, key=lambda node: (node["NodeManagerHostname"], node["NodeID"]))
        ]

    def start(self, node: Node, setup: Setup, cpus: int, gpus: int) -> Any:
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        return self._actor.options(scheduling_strategy=_on(node), **options).remote(setup)

    def arrive(self, worker: Any) -> Any:
        return worker.arrive.remote()

    def exchange(self, worker: Any, message: Any) -> Any:
        return worker.exchange.remote(message)

    def ready(self, tokens: list[Any], seconds: float) -> list[Any]:
        ray = load_ray()
        if ray.wait(tokens, num_returns=1, timeout=seconds)[0]:
            return ray.wait(tokens, num_returns=len(tokens), timeout=0)[0]
        return []

    def take(self, token: Any) -> Any:
        ray = load_ray()
        try:
            return ray.get(token)
        except ray.exceptions.RayError as error:
            raise WorkerLost(_cause(str(error))) from None

    def end(self, worker: Any) -> None:
        with contextlib.suppress(Exception):  # it is gone, or its cluster is
            load_ray().kill(worker)

    def last_lines(self, node: Node, log: str) -> list[str]:
        with contextlib.suppress(Exception):  # its machine may be gone by now
            asked = load_ray().remote(last_lines).options(num_cpus=0, scheduling_strategy=_on(node), max_retries=0)
            return load_ray().get(asked.remote(log), timeout=ANSWERS_WITHIN)
        return []

    def close(self) -> None:
        if self.ends:
            load_ray().shutdown()


def _on(node: Node) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _cause(text: str) -> str:
    """Of what Ray says of an actor's end, the part that says why, in one line."""
    words = " ".join(text.split())
    for begin in ("The actor is dead because", "The actor died because", "The actor"):
        if begin in words:
            words = words[words.index(begin) :]
            break
    return words[:300]
