"""Cells of made-up answers on a cluster, and what they are compared with: the same cells in one process."""

import os

from harness.cells import CellSettings
from harness.cluster.bench import ClusterBench
from harness.cluster.crew import Crew
from harness.cluster.messages import Setup
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.telling import telling
from tests.support.journaled_bench import BATCH, CELLS, QUESTIONS, JournaledBench


def alone(folder, cells=CELLS, bench=JournaledBench):
    """The files of one process."""
    store = Store(folder / "results")
    made = bench(CellSettings(), RunFolder(folder / "run"), store)
    for cell in cells:
        with made.measuring(cell) as measured:
            store.write(measured.result, measured.answers, None if cell.is_dense else measured.dense)
    return files(folder)


def on_cluster(folder, machines, cells=CELLS):
    """Measure cells on machines; returns what the driver said. The folder is that of `alone`."""
    store, lines = Store(folder / "results"), []
    crew = Crew(machines, Setup(CellSettings(), bench=JournaledBench), "cpu")
    with telling(lines.append):
        crew.sizes = {"m": 1}  # there is no such model for machines to look at
        crew.open()
        bench = ClusterBench(crew, lambda cell: 60.0, store, RunFolder(folder / f"run-{os.getpid()}"))
        try:
            for cell in bench.as_they_end(cells):
                with bench.measuring(cell) as measured:
                    if not measured.cached:
                        store.write(measured.result, measured.answers, None if cell.is_dense else measured.dense)
        finally:
            bench.close()
    return lines


def files(folder):
    """Names and bytes of the results, but for the moment at which each was made."""
    found = {}
    for path in sorted((folder / "results").rglob("*.json*")):
        lines = path.read_text().splitlines()
        kept = [line for line in lines if not line.startswith((' "date"', ' "digest"', ' "latency_ms"', '  "processes"'))]
        found[str(path.relative_to(folder))] = "\n".join(kept)
    return found


def wanted(cells=CELLS):
    return {f"{cell.label()} {cell.suite} {first}" for cell in cells for first in range(0, QUESTIONS, BATCH)}
