"""What a run does in place of pytest's own loop: with `--plan` nothing, with `--engine` a test when its cell has ended."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from fitprune.errors import FitPruneError, one_line
from harness.bench.bench import Bench
from harness.bench.planning import Expected, Planner, lines_of
from harness.cells import Cell
from harness.cluster.bench import ClusterBench
from harness.cluster.crew import Crew
from harness.cluster.messages import Setup
from harness.cluster.ray_machines import connect
from harness.plugin.repeated import stopped
from harness.plugin.session import RunSession
from harness.plugin.workers import cell_of, cells_among
from harness.results.once import RunFolder
from harness.tasks.build import build_task
from harness.tasks.hub import known_commits
from harness.telling import telling

_QUESTIONS = 1000  # of a suite whose data are not on this machine


def loop(session: pytest.Session, run: RunSession) -> bool:
    """Plan the cells of a session, or run them on a cluster. Raises pytest.UsageError, in one line, for what cannot be."""
    if session.testsfailed:
        raise session.Interrupted("errors during collection")
    cells = cells_among(session.items)
    try:
        bench = _cluster_bench(run, cells) if run.options.engine else None
        if run.options.plan or bench is None:
            _plan(run, cells, bench)
            return True
    except FitPruneError as error:
        raise pytest.UsageError(one_line(error)) from None
    run.use(bench)
    return _run_as_cells_end(session, run, bench, cells)


def _plan(run: RunSession, cells: list[Cell], cluster: ClusterBench | None) -> None:
    """Say what would run."""
    options = run.options
    device, facts = (run.worker.device(options.device), None) if cluster is None else (None, cluster.models)
    planner = Planner(options.settings, run.store, device, options.rerun, run.margin, facts)
    try:
        planned = planner.plan(cells)
        lines = [*lines_of(planned), *([] if cluster is None else [cluster.price(planned)])]
    finally:
        if cluster is not None:
            cluster.close()
    terminal: Any = run.config.pluginmanager.get_plugin("terminalreporter")
    for line in lines:
        terminal.write_line(line)


def _cluster_bench(run: RunSession, cells: list[Cell]) -> ClusterBench:
    """What measures a run's cells on the cluster that `--engine` names. What does so in this process by a project's wish does
    so in each worker.

    Raises FitPruneError, in one line, where no cluster answers, and for one whose machines are not fit.
    """
    options, own = run.options, run.config.hook.pytest_fitprune_bench(run=run)
    suites = dict.fromkeys(cell.suite for cell in cells)
    setup = Setup(
        options.settings,
        rerun=options.rerun,
        margins={suite: options.allowed(suite) for suite in suites} if options.gate == "sequential" else None,
        commits=known_commits(),
        models=tuple(dict.fromkeys(cell.model for cell in cells)),
        suites=tuple(suites),
        bench=type(own) if own else Bench,
    )
    crew = Crew(connect(options.engine), setup, options.device)
    try:
        with telling(run.say):
            crew.open()
    except BaseException:
        crew.close()
        raise
    return ClusterBench(crew, _seconds(run, suites), run.store, RunFolder(run.folder))


def _seconds(run: RunSession, suites: Iterable[str]) -> Callable[[Cell], float]:
    """How long each cell is expected to take: by earlier results, else in proportion to its questions."""
    expected, settings = Expected(run.store.read_all().results), run.options.settings
    questions = dict.fromkeys(suites, settings.limit or _QUESTIONS)
    for suite in questions:
        try:
            questions[suite] = len(build_task(suite, settings.data, settings.limit).rows)
        except FitPruneError:
            continue
    return lambda cell: expected.seconds(cell, questions[cell.suite]) or questions[cell.suite] / 10


def _run_as_cells_end(session: pytest.Session, run: RunSession, bench: ClusterBench, cells: list[Cell]) -> bool:
    """Run each test of a session: those of no cell first, then each when its cell has ended."""
    waiting: dict[Cell | None, list[pytest.Item]] = {}
    for item in session.items:
        waiting.setdefault(cell_of(item), []).append(item)
    try:
        _run(session, waiting.pop(None, []))
        with telling(run.say):
            for cell in bench.as_they_end(cells):
                _run(session, waiting.pop(cell))
                if stopped(run.folder):
                    break
        for items in waiting.values():
            _run(session, items)  # which are not run
    except FitPruneError as error:
        raise session.Interrupted(one_line(error)) from None
    finally:
        bench.close()
    return True


def _run(session: pytest.Session, items: list[pytest.Item]) -> None:
    for item in items:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
