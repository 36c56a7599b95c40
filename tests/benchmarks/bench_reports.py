"""What does the page of a large results folder cost? Seconds and memory to render it, its size, and how fast it sorts.

    python -m tests.benchmarks.bench_reports [--cells 10000] [--questions 100] [--keep DIR]

The results are made up, in the files and fields of real ones: models × methods × reductions × suites, each cell with its
answers. Promised for 10 000 cells: 150 s to render, 1 GB, 8 MB, 2 s to open and 100 ms a sort. All seconds are a processor's,
so that a busy machine shows the same; those in the browser are of the process that runs and draws the page, a headless
Chromium's, until its next frame. Without one these lines are missing.
"""

import argparse
import contextlib
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from tabulate import tabulate

from harness.answering.evaluate import Answer, Answers
from harness.results.result import Result, versions
from harness.results.store import Store
from tests.support.browser import PROGRAM, Browser

METHODS = (
    *("random", "downsample", "fitprune", "fastv", "vtw", "pyramiddrop", "sparsevlm", "dart", "visionzip", "fastervlm"),
    *("vispruner", "divprune", "prumerge", "gprune", "hired", "tome", "pool"),
)
SUITES = {"gqa": "exact_match", "vqav2": "exact_match", "textvqa": "exact_match", "pope": "pope_accuracy"}
SUITES |= {"mme": "mme_perception_score", "scienceqa": "exact_match"}
REDUCTIONS = (0.3, 0.5, 0.6, 0.7, 0.9)
LAYERS = 32


def make_results(folder: Path, cells: int, questions: int) -> None:
    """Write so many cells, at least."""
    rng, store = np.random.default_rng(0), Store(folder)
    models = -(-cells // (len(METHODS) * len(REDUCTIONS) * len(SUITES)))
    places = itertools.product(range(models), METHODS, REDUCTIONS, SUITES)
    for model, method, reduction, suite in itertools.islice(places, cells):
        dense, pruned = (_answers(suite, rng.random(questions) < share) for share in (0.9, 0.9 - 0.5 * reduction))
        store.write(_result(f"model-{model}", method, reduction, suite, dense, pruned, rng), pruned, dense)


def _answers(suite: str, right: np.ndarray) -> Answers:
    made = [
        Answer(
            doc_id,
            f"{doc_id // 2:016x}",
            f"Is the object number {doc_id} to the left of the other one in this picture?",
            "yes" if good else "no",
            "yes",
            float(good),
            ("existence", "count", "color", "position")[doc_id // 2 % 4] if suite == "mme" else "",
        )
        for doc_id, good in enumerate(right)
    ]
    return Answers(suite, SUITES[suite], 100 * float(right.mean()), made, len(made), 1.0, "digest")


def _result(
    model: str, method: str, reduction: float, suite: str, dense: Answers, pruned: Answers, rng: np.random.Generator
) -> Result:
    drop, half = dense.score - pruned.score, float(rng.uniform(2, 6))
    kept = [float(round(576 * (1 - reduction * layer / LAYERS), 2)) for layer in range(LAYERS)]
    ratio = 1 - 0.6 * reduction + float(rng.normal(0, 0.02))
    return Result(
        model=model,
        revision="0123456789abcdef",
        pruner=method,
        params={"drop": [int(count) for count in kept]},
        suite=suite,
        metric=SUITES[suite],
        score=pruned.score,
        dense_score=dense.score,
        drop=drop,
        drop_ci95=(drop - half, drop + half),
        n=len(pruned.answers),
        flops=8.5e12 * (1 - reduction * float(rng.uniform(0.8, 1))),
        dense_flops=8.5e12,
        reduction=reduction + float(rng.normal(0, 0.003)),
        latency_ms={
            "prefill": 80.0,
            "prefill_ratio": ratio,
            "prefill_ratio_q1": ratio - 0.01,
            "prefill_ratio_q3": ratio + 0.01,
        },
        memory_mb=15000.0,
        versions=versions(),
        device="cpu",
        seed=0,
        date="2026-01-01T00:00:00+00:00",
        reduction_asked=reduction,
        score_ci95=(pruned.score - half, pruned.score + half),
        clusters=len(pruned.answers) // 2,
        data="hub",
        data_digest="0123456789abcdef" * 4,
        max_drop=1.0,
        verdict="fail" if drop - half > 1 else "pass",
        command=f"pytest suites/test_{suite}.py --model {model} --pruner {method} --reduction {reduction} --data hub",
        tokens_per_layer=kept,
    )


def render(results: Path, page: Path) -> tuple[float, float]:
    """(CPU seconds, MB at the peak) of `fitprune report` and the processes that it starts, together."""
    peak, before = 0, resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen([sys.executable, "-m", "reports", str(results), "--html", str(page)]) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = [watched, *watched.children(recursive=True)]
                peak = max(peak, sum(one.memory_info().rss for one in family))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak / 1e6


def browse(page: Path) -> tuple[float, list[float]]:
    """CPU seconds to open the page and draw its charts, and those from a click on a column to the frame that shows it, for
    several columns, both ways.
    """
    with Browser() as browser:
        browser.open(page)  # what a browser does once
        start = _drawing(browser)
        opened = browser.open(page)
        opened.wait("document.querySelector('#chart-latency .mark-symbol path')")
        opened.evaluate("new Promise(done => setTimeout(done, 500))")  # the charts settle
        opening, sorts = _drawing(browser) - start, []
        for name in ("average", "average", "gflops", "gqa", "method", "saved"):
            start = _drawing(browser)
            opened.evaluate(
                f"""new Promise(done => {{
                    document.getElementById("sort-{name}").click();
                    requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(() => setTimeout(done))));
                }})"""
            )
            sorts.append(_drawing(browser) - start)
    return opening, sorts


def _drawing(browser: Browser) -> float:
    """CPU seconds of the browser's processes that run and draw pages, so far."""
    family = psutil.Process(browser.process.pid).children(recursive=True)
    return sum(sum(one.cpu_times()[:2]) for one in family if "--type=renderer" in one.cmdline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000, help="results in the folder")
    parser.add_argument("--questions", type=int, default=100, help="answers of each")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="leave results and page here; results that are there are taken"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        if not (folder / "results").is_dir():
            make_results(folder / "results", asked.cells, asked.questions)
        page = folder / "page.html"
        seconds, megabytes = render(folder / "results", page)
        lines = [
            ("render", f"{seconds:.0f} s", "150 s"),
            ("memory at the peak", f"{megabytes:.0f} MB", "1000 MB"),
            ("page", f"{page.stat().st_size / 1e6:.2f} MB", "8 MB"),
        ]
        if PROGRAM is not None:
            opening, sorts = browse(page)
            lines += [("opened", f"{opening:.1f} s", "2 s"), ("slowest of six sorts", f"{1e3 * max(sorts):.0f} ms", "100 ms")]
    print(f"{asked.cells} cells, {asked.questions} questions each")
    print(tabulate(lines, ["", "measured", "at most"], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
