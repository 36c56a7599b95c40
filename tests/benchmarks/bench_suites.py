"""What does a suite cost to open, and what does a task cost that lmms-eval knows and no suite is?

    python -m tests.benchmarks.bench_suites [--suite vqav2] [--limit 400]

12 000 questions on pictures of 640 x 480 are opened, their digest included. Then a dense cell of llava-tiny is asked as its
suite is, and as if the suite's task were named alone, so that its metric is found and proven to be a mean; alternately, in
one process. Promised: 5 s of the processor, and at most 5 % more.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from harness.models.loading import load_model
from harness.tasks import specs
from harness.tasks.build import build_task
from harness.tasks.preflight import check_data
from harness.tasks.spec import Metric, SuiteSpec
from tests.benchmarks.bench_data import make_pope
from tests.support.evaluating import evaluate_cell

MINI = Path(__file__).parents[2] / "suites/data"  # as a folder, since a task that no suite is has no mini edition
QUESTIONS, SECONDS, SHARE, REPEATS = 12_000, 5.0, 0.05, 3


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and what the work gives."""
    began = time.process_time()
    done = work()
    return time.process_time() - began, done


def opened() -> float:
    """Seconds to open a suite of so many questions, its digest included."""
    with tempfile.TemporaryDirectory() as folder:
        make_pope(Path(folder), QUESTIONS)
        build_task("pope", "mini", 8)
        taken, task = timed(lambda: (check_data("pope", folder), build_task("pope", folder))[1])
        assert len(task.rows) == QUESTIONS
    return taken


def generic_share(suite: str, limit: int) -> float:
    """How much longer a cell takes where its task is one that no suite is."""
    loaded, shipped = load_model("llava-tiny", "cpu"), specs.SUITES[suite]
    generic = SuiteSpec(suite, shipped.task, shipped.folder, Metric(shipped.metric.name, full=None), suite, hub="")

    def ask(spec: SuiteSpec) -> tuple[float, Any]:
        specs._SHIPPED[suite] = spec
        specs.find_suite.cache_clear()
        return timed(lambda: evaluate_cell(loaded, None, suite, data=str(MINI), limit=limit))

    try:
        ask(shipped), ask(generic)  # warm-up
        shares = []
        for _ in range(REPEATS):
            (base, ours), (more, theirs) = ask(shipped), ask(generic)
            assert (ours.score, ours.statistic) == (theirs.score, theirs.statistic)
            shares.append(more / base - 1)
    finally:
        specs._SHIPPED[suite] = shipped
        specs.find_suite.cache_clear()
    return median(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="vqav2")
    parser.add_argument("--limit", type=int, default=400)
    asked = parser.parse_args()
    seconds = opened()
    print(f"{QUESTIONS} questions are opened in {seconds:.1f} s of the processor", flush=True)
    share = generic_share(asked.suite, asked.limit)
    print(f"{asked.suite}, {asked.limit} questions: {share:+.1%} where the task is one that no suite is")
    if seconds > SECONDS or share > SHARE:
        raise SystemExit(f"promised: {SECONDS:.0f} s, and {SHARE:.0%}")


if __name__ == "__main__":
    main()
