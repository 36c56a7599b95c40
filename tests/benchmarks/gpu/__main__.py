"""Every figure of a GPU that this project owes, the most valuable first, in one table with the card's name (docs/gpu.md).

    python -m tests.benchmarks.gpu [--device cuda:0] [--dtype bfloat16] [--minutes 25] [--out gpu-figures] [--section NAME,…]

Each figure is kept as soon as it is measured, in OUT/gpu.jsonl; a run that ends early goes on where it stopped when the command
is given again. OUT/gpu.md is the table. Exit status: 0 when every figure is there, 1 when some are not, 2 for wrong input.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fitprune import FitPruneError
from fitprune.arguments import Parser, exit_status, known_names, names, one_of, whole
from tests.benchmarks.gpu import table
from tests.benchmarks.gpu.child import FAILED, TIME_ENDED
from tests.benchmarks.gpu.record import Record
from tests.benchmarks.gpu.section import Row, Section
from tests.benchmarks.gpu.sections import SECTIONS
from tests.benchmarks.gpu.setting import ROOT, told

PAGE = "gpu.md"
# So often may a section's process end without a figure before the section is given up.
FRUITLESS = 2


def child(options: argparse.Namespace, **more: Any) -> list[str]:
    """The command of a section's process."""
    asked = {name: getattr(options, name) for name in ("device", "dtype", "attention", "toy")}
    asked |= {"out": str(options.out.absolute()), "section": None, **more}
    return [sys.executable, "-m", "tests.benchmarks.gpu.child", json.dumps(asked)]


def described(options: argparse.Namespace) -> dict[str, Any] | None:
    """The setting; None where it cannot be had, which its process has said. This process never touches the card."""
    done = subprocess.run(child(options), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def measure(section: Section, setting: dict[str, Any], options: argparse.Namespace, ends: float) -> str:
    """Run a section's processes until every row has its figure or has failed; why some have none, else empty.

    A process ends at a row that fails, for it may have broken the card's context, and the next goes on behind that row.
    """
    failed: dict[str, str] = {}
    fruitless = 0
    while rows := _left(section, setting, options.out, failed):
        record, left = Record(options.out), ends - time.monotonic()
        if left < rows[0].seconds * record.pace(section, setting):
            return f"{len(rows)} figures are not begun: the {options.minutes} minutes are over"
        status = _run(child(options, section=section.name, seconds=left, skip=list(failed)), left)
        now = _left(section, setting, options.out, failed)
        if status in (None, TIME_ENDED):
            return f"{len(now)} figures are left: the {options.minutes} minutes are over"
        if status == 0 or not now:
            continue
        record = Record(options.out)
        if status != FAILED:
            record.add(setting, section.name, now[0].name, failed=f"its process ended with status {status}")
        last = record.latest()
        failed[last["row"]] = last["failed"]
        fruitless = fruitless + 1 if len(now) == len(rows) else 0
        if fruitless == FRUITLESS:
            break
    return "; ".join(f"{row}: {why}" for row, why in failed.items())


def _left(section: Section, setting: dict[str, Any], out: Path, failed: dict[str, str]) -> list[Row]:
    return [row for row in Record(out).left(section, setting) if row.name not in failed]


def _run(command: list[str], seconds: float) -> int | None:
    """The exit status of a section's process; None where it was ended, since the time was over."""
    # In a session of its own, an interrupt from the keyboard is for this process alone.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        process.kill()
        process.wait()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other run writes to the folder. Raises FitPruneError where one does."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FitPruneError(f"another run writes its figures to {folder}; --out takes another folder") from None
    try:
        yield
    finally:
        lock.release()


def run(options: argparse.Namespace) -> int:
    """Measure, and write the table."""
    ends = time.monotonic() + 60 * options.minutes
    by_name = {section.name: section for section in SECTIONS}
    chosen = known_names("section", options.section, by_name)
    options.out.mkdir(parents=True, exist_ok=True)
    with alone(options.out):
        if options.table:
            table.write(options.out / PAGE, Record(options.out))
            return 0
        setting = described(options)
        if setting is None:
            return 2
        print(told(setting), flush=True)
        try:
            for section in map(by_name.__getitem__, chosen):
                rows = len(_left(section, setting, options.out, {}))
                print(f"{section.name}: {rows or 'no'} figures to measure", flush=True)
                if why := measure(section, setting, options, ends):
                    print(f"{section.name}: {why}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on with the next figure", file=sys.stderr)
        record = Record(options.out)
        table.write(options.out / PAGE, record)
        print(f"{options.out / PAGE}")
        return int(any(record.left(by_name[name], setting) for name in chosen))


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = Parser(prog="python -m tests.benchmarks.gpu", description="Every figure of a GPU that this project owes.")
    add = parser.add_argument
    add("--device", help="cuda:N, cpu with --toy (default cuda:0; with --toy the CPU where there is no GPU)")
    add("--dtype", type=one_of("bfloat16", "float16", "float32"), help="default: bfloat16, on cards without it float16")
    add("--attention", default="sdpa", help="of the models: sdpa, eager, flash_attention_2 (default %(default)s)")
    add("--minutes", type=whole(), default=25, help="no figure is begun that would end later (default %(default)s)")
    add("--out", type=Path, default=Path("gpu-figures"), help="folder of figures and table (default %(default)s)")
    add("--section", type=names, default=("all",), help="some of: " + ", ".join(section.name for section in SECTIONS))
    add("--table", action="store_true", help="measure nothing, write the table of the figures so far")
    add("--toy", action="store_true", help="small sizes, to try the command; a CPU will do")
    return exit_status(lambda: run(parser.parse_args(words)))


if __name__ == "__main__":
    sys.exit(main())
