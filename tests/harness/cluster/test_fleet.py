"""The driver and its workers without Ray: results equal to one process's, whoever dies, and one line for what cannot be."""

import contextlib
import random
import re
from collections import Counter

import pytest

import harness.cluster.worker
from fitprune import BudgetError, FitPruneError
from harness.cells import Cell, CellSettings
from harness.cluster.bench import ClusterBench
from harness.cluster.crew import Crew, Node
from harness.cluster.messages import Ask, Setup
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.telling import telling
from tests.support.cluster_runs import alone, files, wanted
from tests.support.fake_bench import FakeBench
from tests.support.journaled_bench import CELLS, JournaledBench
from tests.support.thread_machines import ThreadMachines


def setup(bench=JournaledBench, **more):
    return Setup(CellSettings(), models=("m",), bench=bench, **more)


def measure(folder, machines, cells=CELLS, bench=JournaledBench, between=lambda cell: None, **more):
    """What a run does with its cells; the errors of those that have one, and the lines that were told."""
    store, errors, lines = Store(folder / "results"), {}, []
    crew = Crew(machines, setup(bench, **more), "cpu")
    with telling(lines.append):
        crew.open()
        cluster = ClusterBench(crew, lambda cell: 1.0, store, RunFolder(folder / "run"))
        try:
            for cell in cluster.as_they_end(cells):
                between(cell)
                try:
                    with cluster.measuring(cell) as measured:
                        if not measured.cached:
                            store.write(measured.result, measured.answers, None if cell.is_dense else measured.dense)
                except Exception as error:
                    errors[cell] = error
        finally:
            cluster.close()
    return errors, lines


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    monkeypatch.setenv("JOURNALED_LOG", str(path))
    monkeypatch.setenv("FAKE_LOG", str(path))
    # Who listens is known to a whole process: these workers share it with the driver.
    monkeypatch.setattr(harness.cluster.worker, "telling", lambda listener: contextlib.nullcontext())
    return path


def asked(log):
    return Counter(log.read_text().splitlines())


def test_the_same_files_as_one_process_and_every_question_once(tmp_path, log):
    expected = alone(tmp_path / "alone")
    log.unlink()
    machines = ThreadMachines()
    errors, lines = measure(tmp_path / "cluster", machines)
    assert (errors, lines) == ({}, [])
    assert files(tmp_path / "cluster") == expected
    assert asked(log) == Counter(wanted())
    assert {thread.node.id for thread in machines.workers} == {"a", "b"}
    assert machines.closed
    assert not machines.alive
    assert not list((tmp_path / "cluster/results/journals").iterdir())


def test_a_second_run_asks_nothing(tmp_path, log):
    measure(tmp_path, ThreadMachines())
    before = log.read_bytes()
    assert measure(tmp_path, ThreadMachines()) == ({}, [])
    assert log.read_bytes() == before


def test_a_rerun_asks_everything_once(tmp_path, log):
    measure(tmp_path, ThreadMachines())
    log.unlink()
    measure(tmp_path, ThreadMachines(), rerun=True)
    assert asked(log) == Counter(wanted())


def test_thirty_random_deaths_lose_nothing_and_double_at_most_a_batch_each(tmp_path, log):
    """Workers and machines, as their word is on its way to the driver; machines come back."""
    expected = alone(tmp_path / "alone")
    log.unlink()
    draw, deaths = random.Random(1), []
    nodes = [Node(name, name, 1, 0) for name in "abc"]

    def heard(thread, message):
        if len(deaths) < 30 and draw.random() < 0.06 and not thread.dead:
            deaths.append(thread.worker)
            if draw.random() < 0.8:
                machines.remove(thread.node.id)
                machines.there[thread.node.id] = thread.node
            else:
                thread.kill()

    machines = ThreadMachines(nodes, heard)
    rounds = 0
    while len(deaths) < 30:
        rounds += 1
        # Of a machine that is back at once the crew cannot know that it was gone, so a cell may be said to have failed; and one
        # that dies before its first worker is there ends the run with a line that says so.
        errors, said = None, []
        while errors != {}:
            try:
                errors, _ = measure(tmp_path / str(rounds), machines)
            except FitPruneError as error:
                said.append(str(error))
        ended = "machine [abc]: no worker starts there: (its node has died|it was killed)"
        assert all(re.fullmatch(ended, line) for line in said)
        assert files(tmp_path / str(rounds)) == expected
        machines.workers.clear()
    batches = asked(log)
    assert batches.keys() == wanted()
    assert sum(batches.values()) <= rounds * len(wanted()) + len(deaths)


def test_a_driver_that_stops_goes_on_where_it_was(tmp_path, log):
    expected = alone(tmp_path / "alone")
    log.unlink()

    def stop(cell):
        raise KeyboardInterrupt

    machines = ThreadMachines()
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "cluster", machines, between=stop)
    assert not machines.alive
    assert machines.closed
    assert measure(tmp_path / "cluster", ThreadMachines())[0] == {}
    assert files(tmp_path / "cluster") == expected
    assert sum(asked(log).values()) <= len(wanted()) + 2


def test_a_cell_of_which_three_workers_die_fails_with_their_last_lines(tmp_path):
    bad = CELLS[3]

    def heard(thread, message):
        if isinstance(message, Ask) and message.call == "append" and "fastv" in str(threads.get(id(thread.worker))):
            thread.kill()

    threads = {}

    class Machines(ThreadMachines):
        def exchange(self, thread, message):
            if isinstance(message, Cell):
                threads[id(thread.worker)] = message.label() if message == bad else ""
            return super().exchange(thread, message)

    errors, lines = measure(tmp_path, Machines(heard=heard))
    assert list(errors) == [bad]
    assert isinstance(errors[bad], FitPruneError)
    assert str(errors[bad]) in {
        f"{bad.label()} on {bad.suite}: 3 workers died of it, the last on {name}: Segmentation fault" for name in "ab"
    }
    assert len([line for line in lines if "died; another goes on from its last batch" in line]) == 2
    assert len(Store(tmp_path / "results").read_all().results) == len(CELLS) - 1


def test_errors_come_back_as_they_were_raised(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CRASH", "m-random-0.3")
    out, crash, fine = Cell("m", "fastv", 0.7, "gqa"), Cell("m", "random", 0.3, "gqa"), Cell("m", "fastv", 0.3, "gqa")
    errors, _ = measure(tmp_path, ThreadMachines(), [out, crash, fine], FakeBench)
    assert set(errors) == {out, crash}
    assert type(errors[out]) is BudgetError
    assert str(errors[out]) == "FastV cannot save 70.0%; it reaches 60.0%"
    assert type(errors[crash]) is ZeroDivisionError
    assert "in evaluate" in str(errors[crash].__cause__)


@pytest.mark.parametrize(
    ("arrivals", "said"),
    [
        (
            {"b": {"facts": {"version of torch": "2.9"}}, "a": {"facts": {"version of torch": "2.13"}}},
            "machine b has another version of torch than a: 2.9, not 2.13",
        ),
        ({"b": {"facts": {"weights of m": "1f"}}, "a": {"facts": {"weights of m": "2e"}}}, "another weights of m than a: 1f"),
        ({"b": {"facts": {"code of fitprune-bench": "old"}}}, "machine b has another fitprune-bench than this one"),
        ({"b": {"refusal": "the weights of 'm' are not on this machine"}}, "machine b: the weights of 'm' are not on this"),
    ],
)
def test_a_machine_that_is_not_as_the_others_is_refused_by_name(tmp_path, arrivals, said):
    machines = ThreadMachines(**arrivals)
    with pytest.raises(FitPruneError, match=said):
        Crew(machines, setup(), "cpu").open()


def test_a_machine_that_comes_later_and_is_not_as_the_others_is_left_out(tmp_path, log):
    machines = ThreadMachines([Node("a", "a", 1, 0)], c={"facts": {"version of torch": "2.9"}})
    machines.arrivals["a"] = {"facts": {"version of torch": "2.13"}}

    def between(cell):
        machines.there["c"] = Node("c", "c", 1, 0)
        crew_look()

    def crew_look():
        import harness.cluster.crew

        patch.setattr(harness.cluster.crew, "LOOK", 0.0)

    with pytest.MonkeyPatch.context() as patch:
        errors, lines = measure(tmp_path, machines, between=between)
    assert errors == {}
    assert any(line.startswith("machine c has another version of torch than a: 2.9, not 2.13") for line in lines)
    assert asked(log) == Counter(wanted())


def test_gpus_that_are_not_there_are_refused_in_one_line():
    with pytest.raises(FitPruneError, match=r"no machine of the cluster has a GPU, which --device cuda asks for"):
        Crew(ThreadMachines(), setup(), "cuda").open()
    cards = {"a": {"needs": {"m": 300 * 10**9}, "room": 80 * 10**9, "facts": {"device": "H100"}}}
    machines = ThreadMachines([Node("a", "a", 8, 2)], **cards)
    with pytest.raises(
        FitPruneError, match="m takes some 300 GB, 5 cards of 80 GB, and no machine of the cluster has more than 2"
    ):
        Crew(machines, setup()).open()


def test_a_large_model_takes_several_cards_and_a_machine_without_any_takes_no_part(tmp_path):
    cards = {"a": {"needs": {"m": 100 * 10**9}, "room": 80 * 10**9, "facts": {"device": "H100"}}}
    machines = ThreadMachines([Node("a", "a", 8, 4), Node("head", "head", 8, 0)], **cards)
    crew = Crew(machines, setup())
    crew.open()
    crew.staff(lambda models: 10 if "m" in models else 0)
    assert [(thread.node.id, thread.room, thread.worker.setup.device) for thread in machines.alive] == [
        ("a", (1, 2), "auto")
    ] * 2
    assert machines.alive[0].worker.setup.processes == 2
    crew.close()


def test_cores_are_shared_out_by_what_a_model_takes_of_memory():
    memory = {"a": {"needs": {"m": 20 * 10**9}, "room": 100 * 10**9}}
    machines = ThreadMachines([Node("a", "a", 16, 0)], **memory)
    crew = Crew(machines, setup())
    crew.open()
    crew.staff(lambda models: 100)
    assert [(thread.room, thread.worker.setup.threads) for thread in machines.alive] == [((4, 0), 4)] * 4
    crew.close()
