"""The engine on a Ray cluster that the driver's machine is no part of: two cores on this machine, bound to 127.0.0.1."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ray_cluster
from tests.support.cluster_runs import alone, files

ROOT = Path(__file__).parents[3]


@pytest.mark.exhaustive
def test_a_driver_that_is_no_part_of_the_cluster(tmp_path, monkeypatch):
    """Through Ray's client port: the same files as of one process, and no worker is left."""
    pytest.importorskip("grpc", reason="Ray's client is not installed: pip install 'ray[client]'")
    for name in ("JOURNALED_LOG", "FAKE_LOG"):
        monkeypatch.setenv(name, str(tmp_path / "log"))
    with socket.socket() as free:
        free.bind((ray_cluster.HERE, 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # a driver elsewhere does not bring its own folder
    with ray_cluster.machines(count=1, cores=2, ray_client_server_port=port):
        engine = f"ray://{ray_cluster.HERE}:{port}"
        command = [sys.executable, "-m", "tests.support.ray_cluster", engine, str(tmp_path / "there")]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
        assert ray_cluster.soon(lambda: not ray_cluster.workers())
    assert files(tmp_path / "there") == alone(tmp_path / "alone", ray_cluster.FEW)
