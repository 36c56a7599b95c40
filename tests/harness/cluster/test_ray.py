"""The engine on Ray: two raylets of one core each on this machine, bound to 127.0.0.1."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.cluster.messages import Ask
from harness.cluster.ray_machines import RayMachines
from harness.results.store import Store
from harness.tasks.isolation import lmms_eval_evaluator
from tests.support import ray_cluster
from tests.support.cluster_runs import alone, files, on_cluster, wanted

pytest_plugins = ["pytester", "tests.support.suite_runs"]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Where workers write what they were asked."""
    path = tmp_path_factory.mktemp("log") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOURNALED_LOG", str(path))
        patch.setenv("FAKE_LOG", str(path))
        yield path


@pytest.fixture(scope="module")
def cluster(log):
    import harness.tasks.reading  # noqa: F401  (once here, since pytester forgets what is imported inside a run)

    lmms_eval_evaluator()
    with ray_cluster.machines() as cluster:
        yield cluster
    assert ray_cluster.soon(lambda: not ray_cluster.left_over()), ray_cluster.left_over()


@pytest.fixture(scope="module")
def expected(tmp_path_factory, log):
    """The files of one process."""
    return alone(tmp_path_factory.mktemp("alone"))


class Killing(RayMachines):
    """Takes away a machine at work when so many batches have come in, puts another in its place, and later kills a worker."""

    def __init__(self, cluster, machine, worker):
        super().__init__(ends=False)
        self.cluster, self.worker, self.machine, self.batches, self.actors, self.places = cluster, worker, machine, 0, {}, {}

    def start(self, node, setup, cpus, gpus):
        worker = super().start(node, setup, cpus, gpus)
        self.places[worker] = node.id
        return worker

    def exchange(self, worker, message):
        token = super().exchange(worker, message)
        self.actors[token] = worker
        return token

    def take(self, token):
        message = super().take(token)
        if isinstance(message, Ask) and message.call == "append":
            self.batches += 1
            here = [node for node in self.cluster.worker_nodes if node.node_id == self.places[self.actors[token]]]
            if self.machine and self.batches >= self.machine and here:
                self.machine = 0
                self.cluster.remove_node(here[0])
                self.cluster.add_node(num_cpus=1, node_ip_address=ray_cluster.HERE)
            elif self.worker and self.batches >= self.worker and not self.machine:
                self.worker = 0
                self.end(self.actors[token])
        return message


@pytest.mark.exhaustive
def test_a_worker_and_a_machine_that_die_change_nothing(cluster, log, expected, tmp_path):
    """The same files as of one process, and of what was asked at most a batch twice for each death."""
    log.unlink(missing_ok=True)
    machines = Killing(cluster, machine=5, worker=20)
    gone, died = on_cluster(tmp_path, machines)
    assert "is gone with its machine; another goes on from its last batch" in gone
    assert "died; another goes on from its last batch" in died
    assert files(tmp_path) == expected
    asked = Counter(log.read_text().splitlines())
    assert asked.keys() == wanted()
    assert sum(asked.values()) <= len(wanted()) + 2
    assert ray_cluster.soon(lambda: not ray_cluster.workers())


@pytest.mark.exhaustive
def test_a_driver_that_is_killed_goes_on_where_it_was(cluster, log, expected, tmp_path):
    """The same command again: the same files as of one process, at most a batch of each worker asked twice, no worker left."""
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.support.ray_cluster", cluster.address, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT) as driver:
        assert ray_cluster.soon(lambda: log.exists() and len(log.read_text().splitlines()) >= 30, 60)
        driver.kill()
    assert ray_cluster.soon(lambda: not ray_cluster.workers())
    before = Counter(log.read_text().splitlines())
    assert 30 <= sum(before.values()) < len(wanted())
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    assert files(tmp_path) == expected
    asked = Counter(log.read_text().splitlines())
    assert asked.keys() == wanted()
    assert sum(asked.values()) <= len(wanted()) + 2
    assert ray_cluster.soon(lambda: not ray_cluster.workers())


@pytest.mark.exhaustive
def test_a_run_of_the_suites_on_the_cluster(cluster, run, log):
    result = run("--pruner", "dense,random", "--reduction", "0.3", "--engine", "ray:auto", suites=("gqa", "pope"))
    result.assert_outcomes(passed=4)
    assert len(Store(run.folder).read_all().results) == 4
    assert ray_cluster.soon(lambda: not ray_cluster.workers())
