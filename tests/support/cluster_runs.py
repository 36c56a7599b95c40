"""What a run on a cluster is compared with: the same cells in one process."""

from harness.cells import CellSettings
from harness.results.once import RunFolder
from harness.results.store import Store
from tests.support.journaled_bench import BATCH, CELLS, QUESTIONS, JournaledBench


def alone(folder, cells=CELLS, bench=JournaledBench):
    """The files of one process."""
    store = Store(folder / "results")
    made = bench(CellSettings(), RunFolder(folder / "run"), store)
    for cell in cells:
        with made.measuring(cell) as measured:
            store.write(measured.result, measured.answers, None if cell.is_dense else measured.dense)
    return files(folder)


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
