"""Thirty kills, by chance, of workers, machines and the driver, on three raylets of one core each."""

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import ray_cluster
from tests.support.cluster_runs import alone, files, wanted

KILLS = 30


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_thirty_kills_by_chance_lose_nothing_and_double_at_most_a_batch_of_each_worker(tmp_path, monkeypatch):
    """One to four at once, when a batch has been answered since the last ones. A cell of which three workers died fails its
    run, which is started again, as is one whose driver was killed."""
    log = tmp_path / "log"
    monkeypatch.setenv("JOURNALED_LOG", str(log))
    monkeypatch.setenv("FAKE_LOG", str(log))
    expected = alone(tmp_path / "alone")
    log.unlink()
    monkeypatch.setenv("JOURNALED_PACE", "0.1")
    draw, kills, folder = random.Random(1), Counter(), tmp_path / "cluster"

    def answered():
        return len(log.read_text().splitlines()) if log.exists() else 0

    with ray_cluster.machines(count=3) as cluster:
        command = [sys.executable, "-m", "tests.support.ray_cluster", cluster.address, str(folder)]
        ended = None
        while ended != 0:
            with subprocess.Popen(command, cwd=Path(__file__).parents[3]) as driver, contextlib.ExitStack() as failed:
                failed.callback(driver.kill)
                while kills.total() < KILLS and driver.poll() is None:
                    before = answered()
                    ray_cluster.soon(lambda before=before: answered() > before or driver.poll() is not None, 120)
                    targets = [*ray_cluster.workers(), *cluster.worker_nodes, driver]
                    for target in draw.sample(targets, min(draw.randint(1, 4), KILLS - kills.total(), len(targets))):
                        kills[type(target).__name__] += 1
                        if isinstance(target, int):
                            with contextlib.suppress(ProcessLookupError):  # it went with its machine
                                os.kill(target, signal.SIGKILL)
                        elif target is driver:
                            driver.kill()
                        else:
                            cluster.remove_node(target, allow_graceful=False)
                            cluster.add_node(num_cpus=1, node_ip_address=ray_cluster.HERE)
                ended = driver.wait(300)
        assert ray_cluster.soon(lambda: not ray_cluster.workers())
    assert kills.total() == KILLS
    assert len(kills) == 3
    assert files(folder) == expected
    asked = Counter(log.read_text().splitlines())
    assert asked.keys() == wanted()
    assert sum(asked.values()) <= len(wanted()) + 3 * KILLS  # a driver has three workers with a batch on its way
