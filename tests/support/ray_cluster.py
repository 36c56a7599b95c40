"""Ray clusters for tests: several machines' worth of raylets on this one, bound to 127.0.0.1, and all ended."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cluster.engines import CLIENT
from harness.cluster.ray_machines import RayMachines, connect
from tests.support.cluster_runs import on_cluster
from tests.support.journaled_bench import CELLS

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fitprune-bench[cluster]'")

HERE = "127.0.0.1"
FEW = CELLS[:3]  # what a driver that is no part of the cluster measures


@contextlib.contextmanager
def machines(count=2, cores=1, **head):
    """A cluster of so many raylets, to which this process is connected."""
    from ray._private import services
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # to processes of Ray's own: this machine's address is 127.0.0.1
    own, services.get_node_ip_address = services.get_node_ip_address, lambda address=None: HERE  # else the world's side of it
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": cores, "node_ip_address": HERE, "include_dashboard": False} | head
    )
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=cores, node_ip_address=HERE)
        join(cluster.address)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        services.get_node_ip_address = own


def join(address):
    """Connect this process."""
    ray.init(address=address, _node_ip_address=HERE, log_to_driver=False, configure_logging=False, logging_level="ERROR")


def processes():
    """Ray's processes that descend from this one: id and command line."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout.splitlines()[1:]
    rows = [line.split(None, 2) for line in listed]
    mine, grown = {str(os.getpid())}, True
    while grown:
        more = {pid for pid, parent, _ in rows if parent in mine} - mine
        mine, grown = mine | more, bool(more)
    ours = ("raylet", "gcs_server", "ray::")
    return {int(pid): text for pid, _, text in rows if pid in mine and any(name in text for name in ours)}


def left_over():
    """Their command lines."""
    return list(processes().values())


def workers():
    """The actors among them, by their ids."""
    return [pid for pid, text in processes().items() if text.startswith("ray::Process")]


def soon(holds, seconds=30):
    """Whether something holds before long."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.1)
    return holds()


if __name__ == "__main__":  # a driver in a process of its own, to be killed: its cluster's address and its folder
    from ray._private import services

    services.get_node_ip_address = lambda address=None: HERE
    if sys.argv[1].startswith(CLIENT):
        on_cluster(Path(sys.argv[2]), connect(sys.argv[1]), FEW)
    else:
        join(sys.argv[1])
        on_cluster(Path(sys.argv[2]), RayMachines())
