"""Runs that are killed at random moments, alone and two in one folder, lose nothing and duplicate nothing."""

import itertools
import multiprocessing
import os
import random
import sys
from collections import Counter

import pytest

from harness.results.store import Store
from tests.support.journaled_bench import BATCH, CELLS, LOST, QUESTIONS, run_cells


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have everything imported, in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.journaled_bench"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server imports what it preloads by this alone
        warm = context.Process(target=print)
        warm.start()
        warm.join()
    return context


def killed(process, delay):
    """Whether the process was still running, and is dead now."""
    process.join(delay)
    process.kill()
    process.join()
    return process.exitcode == -9


def check(folder, kills):
    """Every cell once, every question once, and no more work done again than a batch for each kill."""
    store = Store(folder / "results")
    results, notes = store.read_all()
    assert not notes
    found = Counter((result.pruner, result.reduction_asked, result.suite) for result in results)
    assert found == Counter((cell.pruner, cell.reduction, cell.suite) for cell in CELLS)
    for result in results:
        lost = LOST[result.pruner]
        assert (result.n, result.score, result.drop) == (QUESTIONS, 100 - 100 * lost / QUESTIONS, 100 * lost / QUESTIONS)
        answers = store.read_answers(result)
        assert [answer["doc_id"] for answer in answers] == list(range(QUESTIONS))
        assert sum(answer["score"] for answer in answers) == QUESTIONS - lost
    assert not list((folder / "results" / "journals").glob("*"))
    batches = Counter((folder / "log").read_text().splitlines())
    wanted = {f"{cell.label()} {cell.suite} {first}" for cell in CELLS for first in range(0, QUESTIONS, BATCH)}
    assert batches.keys() == wanted
    assert sum(batches.values()) <= len(wanted) + kills


@pytest.mark.parametrize("wanted", [20, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_kills_at_random_moments(processes, tmp_path, wanted):
    draw, kills, rounds = random.Random(0), 0, 0
    while kills < wanted:
        folder, here = tmp_path / str(rounds), 0
        folder.mkdir()
        finished = False
        while not finished:
            started = [processes.Process(target=run_cells, args=(str(folder),)) for _ in range(draw.choice([1, 2]))]
            for process in started:
                process.start()
            # The more kills, the longer a life: a round ends on a slow machine, too.
            dead = [killed(process, draw.uniform(0, 0.12 + 0.005 * here)) for process in started]
            here += sum(dead)
            finished = not all(dead)
        check(folder, here)
        kills, rounds = kills + here, rounds + 1


def test_two_runs_in_one_folder_do_the_work_once(processes, tmp_path):
    started = [processes.Process(target=run_cells, args=(str(tmp_path),)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    check(tmp_path, 0)


def test_what_is_finished_is_never_written_again(processes, tmp_path):
    before: dict = {}
    for delay in itertools.count(1):  # longer from one to the next, so that a busy machine comes to an end too
        process = processes.Process(target=run_cells, args=(str(tmp_path),))
        process.start()
        ended = not killed(process, delay / 20)
        now = {path.name: path.read_bytes() for path in (tmp_path / "results").glob("*.json")}
        assert before.items() <= now.items()
        before = now
        if ended:
            break
    check(tmp_path, 10**6)
