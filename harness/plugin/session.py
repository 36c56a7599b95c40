"""`RunSession`: what one pytest process knows about the run, and the hooks that only a run of the suites needs. It is
registered as a plugin in `pytest_configure`.
"""

import contextlib
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fitprune.errors import FitPruneError, one_line
from harness.cells import Cell
from harness.gate.floor import dense_fault
from harness.gate.saved import SavedRun, compare
from harness.plugin.cards import Dealt, deal
from harness.plugin.options import RunOptions
from harness.plugin.progress import Progress, is_quiet
from harness.plugin.repeated import Repeated
from harness.plugin.selection import is_suites_folder, left_out, selected_suites
from harness.plugin.summary import CellReport, write_summary
from harness.plugin.workers import Worker, cells_among, dealing_order, hand_over
from harness.results.computed import with_verdict
from harness.results.once import RunFolder
from harness.results.result import Result
from harness.results.store import Store
from harness.tasks.hub import take_commits
from harness.tasks.specs import SUITES, find_suite

if TYPE_CHECKING:
    from harness.bench.bench import Bench
    from harness.bench.outcome import Measured
    from harness.cluster.bench import ClusterBench

_Reporting = Generator[None, pytest.TestReport, pytest.TestReport]
_REPORT = "fitprune_cell"  # attribute of a test report; xdist carries it from the worker to the controller


class RunSession:
    """A run of the suites, as one process sees it."""

    def __init__(self, config: pytest.Config, options: RunOptions, worker: Worker, folder: Path) -> None:
        self.config = config
        self.options = options
        self.worker = worker
        self.folder = folder
        self.store = Store(options.results)
        self.reports: dict[Cell, CellReport] = {}
        self.dealt = Dealt(())
        self._repeated = Repeated(folder)
        self._bench: Bench | ClusterBench | None = None
        self._progress: Progress | None = None

    @classmethod
    def start(cls, config: pytest.Config) -> "RunSession":
        """Parse the options; in the process that was started by hand, check them. Raises pytest.UsageError, in one line."""
        worker = Worker.of(config)
        try:
            options = RunOptions.parse(config.option).expanded()
            if worker.is_worker:
                take_commits(worker.commits)
                return cls(config, options.choosing(worker.chosen), worker, Path(worker.folder))
            options = options.choosing()
            named = ["--pyargs", *config.args] if config.option.pyargs else config.args
            if options.engine and (getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None)):
                raise FitPruneError("-n and --engine exclude each other: the cluster's workers run the cells; leave out -n")
            options.check(selected_suites(config.invocation_params.dir, named, options.suites, _unasked()))
        except FitPruneError as error:
            raise pytest.UsageError(one_line(error)) from None
        if getattr(config.option, "maxschedchunk", 0) is None:
            config.option.maxschedchunk = 1  # xdist deals cells out one by one: a cell takes seconds to hours
        run = cls(config, options, worker, Path(tempfile.mkdtemp(prefix="fitprune-run-")))
        run._fit_workers()
        return run

    def _fit_workers(self) -> None:
        """Let no more workers start than the cards have room for."""
        workers = getattr(self.config.option, "numprocesses", None) or 1
        if workers < 2 or self.config.option.collectonly:
            return
        dealt = deal(workers, self.options.device, self.options.models, self.options.settings.batch_size)
        if dealt is not None:
            self.dealt = dealt
            self.config.option.numprocesses, self.config.option.tx = len(dealt.devices), ["popen"] * len(dealt.devices)

    def say(self, line: str) -> None:
        """Write a line on the terminal while a test runs, whose output pytest captures."""
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        with contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled():
            if self.worker.is_worker or terminal is None:
                print(line, file=sys.stderr, flush=True)
            else:
                _begin_line(terminal)
                terminal.write_line(line)

    @property
    def bench(self) -> "Bench | ClusterBench":
        """What evaluates cells in this process; made when the first one runs, so that collecting stays quick."""
        if self._bench is None:
            self.worker.limit_threads()
            self._bench = self.config.hook.pytest_fitprune_bench(run=self) or self._own_bench()
        return self._bench

    def _own_bench(self) -> "Bench":
        from harness.bench.bench import Bench

        return Bench(
            self.options.settings,
            RunFolder(self.folder),
            results=self.store,
            device=self.worker.device(self.options.device),
            processes=self.worker.count,
            rerun=self.options.rerun,
            margin=self.margin,
        )

    @property
    def margin(self) -> Callable[[str], float | None] | None:
        """Where the cells of each suite may stop; None if they ask all questions."""
        return self.options.allowed if self.options.gate == "sequential" else None

    def keep(self, cell: Cell, measured: "Measured") -> Result:
        """Judge a cell, and compare it with the saved run's; write it down, unless it lies in the results folder already,
        and with `--save` beside it. A comparison that cannot be made raises FitPruneError, when all is written.
        """
        options, dense = self.options, None if cell.is_dense else measured.dense
        fault = dense_fault(measured.result, measured.dense, self.store, find_suite(cell.suite).chance)
        measured.result = dataclasses.replace(measured.result, dense_fault=fault)
        result = with_verdict(measured.result, measured.answers, measured.dense, options.gate, options.allowed(cell.suite))
        chosen = options.chosen_as(cell.model)
        asked, command = chosen.asked if chosen.note else "", options.command(cell)
        result = dataclasses.replace(result, compared={}, command=command, model_asked=asked, model_note=chosen.note)
        if not measured.cached:
            self.store.write(result, measured.answers, dense)
        if options.save:
            SavedRun(self.store, options.save).write(result, measured.answers, dense)
        if options.compare:
            saved = SavedRun(self.store, options.compare)
            compared = compare(saved, result, measured.answers, options.gate, options.compare_fail, timed=not measured.cached)
            result = dataclasses.replace(result, compared=compared)
        return result

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Files of suites that are not run."""
        if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
            return None
        if not is_suites_folder(collection_path.parent):
            return None
        by_name = collection_path in {
            Path(self.config.invocation_params.dir, arg.partition("::")[0]) for arg in self.config.args
        }
        return left_out(collection_path, self.options.suites, _unasked(), by_name) or None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """In xdist's workers, the order in which cells are dealt out."""
        if self.worker.is_worker:
            items[:] = dealing_order(items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Hand the run's shared folder to an xdist worker."""
        hand_over(node, self.folder, self.options.chosen, self.dealt.devices)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> _Reporting:
        """Attach what a finished cell gave to its report."""
        report = yield
        finished = item.stash.get(CellReport.KEY, None)
        if report.when == "call" and finished is not None:
            setattr(report, _REPORT, finished.to_json())
        return report

    def use(self, bench: "ClusterBench") -> None:
        """Have cells evaluated elsewhere."""
        self._bench = bench
        if self._progress is not None:
            self._progress.where = bench.where

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what cells gave, from this process or from workers, and stop a run in which one error repeats itself."""
        record = getattr(report, _REPORT, None)
        if not self.worker.is_worker:
            self._repeated.reported(report, CellReport.from_json(record) if record else None)
        if record:
            ended = CellReport.from_json(record)
            again = self.reports.pop(ended.cell, None)  # by a plug-in that runs failed tests again
            self.reports[ended.cell] = ended
            if self._progress is not None and again is None:
                self._progress.ended(ended)

    def pytest_runtest_logfinish(self) -> None:
        """Say where the run stands."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if self._progress is not None and terminal is not None and (line := self._progress.due()):
            _begin_line(terminal)
            terminal.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """From here on the clock runs."""
        if cells := len(cells_among(session.items)):
            self._start_progress(cells)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """With workers, the cells are known when one of them has collected."""
        if self._progress is None:
            self._start_progress(len(ids))

    def _start_progress(self, cells: int) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        self._progress = Progress(cells, is_quiet(terminal is not None and terminal.isatty))

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """A cell that passes by an earlier run's result says so."""
        record = getattr(report, _REPORT, None)
        return ("passed", "c", "CACHED") if record and record["cached"] and report.passed else None

    def pytest_report_header(self) -> list[str]:
        """What runs, in one line, and a line for each family's name."""
        options, settings = self.options, self.options.settings
        questions = "all questions" if settings.limit is None else f"{settings.limit} questions a suite"
        what = f"{', '.join(options.chosen_as(name).label for name in options.models)}; {settings.data} data, {questions}"
        gates = {
            "significant": f"a drop above {options.max_drop} points fails",
            "certified": f"a drop not shown to be below {options.max_drop} points fails",
            "sequential": f"asked until a drop is shown to be below or above {options.max_drop} points",
        }
        gate = "no gate" if options.max_drop is None else gates[options.gate]
        compared = f"; compared with '{options.compare}'" if options.compare else ""
        return [
            f"fitprune: {what}; {gate}{compared}; results: {options.results}",
            *options.model_notes(),
            *filter(None, [self.dealt.note]),
        ]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The table."""
        if self.reports and not self.worker.is_worker:
            write_summary(terminalreporter, list(self.reports.values()), self.options, self.store)

    def pytest_unconfigure(self) -> None:
        """Remove what the processes of the run shared."""
        if not self.worker.is_worker:
            shutil.rmtree(self.folder, ignore_errors=True)


def _unasked() -> list[str]:
    """The shipped suites that run when they are named only."""
    return [name for name, spec in SUITES.items() if not spec.everyday]


def _begin_line(terminal: Any) -> None:
    """Go to a line of one's own. pytest's `ensure_newline` knows of none to end where its dots stand alone, as under `-q`."""
    terminal.ensure_newline()
    if terminal._tw.width_of_current_line:
        terminal._tw.line()
