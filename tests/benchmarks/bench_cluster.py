"""What does a cluster take over the processes of one machine, and how well are cells dealt out over a thousand GPUs?

    python -m tests.benchmarks.bench_cluster [--limit 16] [--rounds 1] [--suites gqa …]

The main job's 60 cells (six suites, the dense model, three methods at three reductions) run in turn by `-n 2` and by `--engine
ray:auto` on two raylets of one core each, which are there before: the wall time that counts is without Ray's start. Beside it
stand the CPU seconds of both, of all processes, and the difference per cell. On a machine with other work wall times mean
little, and CPU seconds some tenths more. The bar is a wall time of at most 1.15 times that of `-n 2`.

Before it, simulated: the share of the ideal time that 1 000 workers reach on 20 models' cells of 1 minute to 2 hours.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from harness.cells import Cell
from harness.cluster.schedule import makespan
from tests.support import ray_cluster

ROOT = Path(__file__).parents[2]
SUITES = ("gqa", "vqav2", "textvqa", "pope", "mme", "scienceqa")
METHODS, REDUCTIONS = "fitprune,fastv,random", "0.3,0.5,0.7"
TICK = os.sysconf("SC_CLK_TCK")


def simulated(seed: int) -> float:
    """Of the ideal time, what 1 000 workers reach; a minute to load a model."""
    draw, seconds = random.Random(seed), {}
    for model in range(20):
        size, pace = draw.randint(200, 2000), draw.uniform(0.5, 4.0)
        lengths = [pace * 60 * draw.choice([1, 2, 5, 10, 30]) for _ in range(size)]
        seconds |= {Cell(f"m{model}", "random", 0.1 + place / 1e4, f"s{place % 7}"): s for place, s in enumerate(lengths)}
    ideal = max(sum(seconds.values()) / 1000, max(seconds.values()))
    return ideal / makespan(seconds, 1000, lambda model: 60.0)


def spent() -> dict[int, float]:
    """CPU seconds so far of each living descendant of this process: a raylet's ended children are added to nobody's account."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        pid = int(stat.parent.name)
        parents[pid], seconds[pid] = int(fields[1]), sum(map(int, fields[11:13])) / TICK
    mine, grown = set(), {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in grown}:
        mine |= grown
    return {pid: seconds[pid] for pid in mine}


def measured(suites: list[str], limit: int, *engine: str) -> tuple[float, float]:
    """Wall and CPU seconds of a run."""
    with tempfile.TemporaryDirectory() as folder:
        tests = [str(ROOT / "suites" / f"test_{suite}.py") for suite in suites]
        asked = ["--model", "llava-tiny", "--pruner", METHODS, "--reduction", REDUCTIONS, "--limit", str(limit)]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, *asked, "--results", folder, *engine]
        since, before, last = time.monotonic(), spent(), {}
        with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said) as run:
            while run.poll() is None:
                time.sleep(0.2)
                last |= spent()
            taken = time.monotonic() - since
            if run.returncode:
                said.seek(0)
                sys.exit(said.read()[-4000:])
        return taken, sum(seconds - before.get(pid, 0.0) for pid, seconds in last.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--suites", nargs="+", default=SUITES)
    asked = parser.parse_args()
    print("1 000 workers on uneven cells reach", ", ".join(f"{simulated(seed):.1%}" for seed in range(3)), "of the ideal")
    os.environ["OMP_NUM_THREADS"] = "1"
    cells = len(asked.suites) * 10
    with ray_cluster.machines():
        rounds = [
            (measured(asked.suites, asked.limit, "-n", "2"), measured(asked.suites, asked.limit, "--engine", "ray:auto"))
            for _ in range(asked.rounds)
        ]
    for place, name in enumerate(("wall time", "CPU seconds")):
        here, there = (median(run[side][place] for run in rounds) for side in (0, 1))
        more = 1000 * (there - here) / cells
        print(f"{name}, {cells} cells: -n 2 {here:.1f}, ray {there:.1f}: {there / here:.2f} times, {more:+.0f} ms a cell")


if __name__ == "__main__":
    main()
