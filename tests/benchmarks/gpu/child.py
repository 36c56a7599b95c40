"""One section in a process of its own: what breaks a CUDA context, or the process, costs the other sections nothing.

    python -m tests.benchmarks.gpu.child '{"section": …}'

Started by the command. It ends with the process that holds the other end of its standard input.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fitprune import FitPruneError
from fitprune.arguments import exit_status
from harness.latency.nvml import Watch, watched
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.record import Record, sizes_of
from tests.benchmarks.gpu.section import Measured, Row, Section
from tests.benchmarks.gpu.sections import SECTIONS
from tests.benchmarks.gpu.setting import device_of, setting

FAILED, TIME_ENDED = 1, 3


def measure(
    section: Section, found: dict[str, Any], device: torch.device, record: Record, seconds: float, skip: list[str]
) -> int:
    """Measure the rows that are left, but those to skip, until one fails or the time is too short for the next.

    Args:
        found: the setting.
        seconds: that are left.

    Returns:
        0, FAILED or TIME_ENDED.
    """
    ends = time.monotonic() + seconds
    bench = Bench(device, found["dtype"], found["attention"], sizes_of(found))
    for row in (row for row in record.left(section, found) if row.name not in skip):
        needed = row.seconds * record.pace(section, found)
        if time.monotonic() + needed > ends:
            print(f"  {row.name}: not begun, it takes {needed:.0f} s and {max(ends - time.monotonic(), 0):.0f} s are left")
            return TIME_ENDED
        known = record.of(found)
        bench.finished = {
            name: known[at, name]["measured"] for at, name in known if at == section.name and "measured" in known[at, name]
        }
        entry = _entry(row, bench)
        record.add(found, section.name, row.name, **entry)
        print(f"  {row.name}: {_said(row, entry)}", flush=True)
        if "failed" in entry:
            return FAILED
    return 0


def _entry(row: Row, bench: Bench) -> dict[str, Any]:
    """The row's entry in the record; whatever goes wrong is said in it."""
    started = time.monotonic()
    with watched([bench.device]) as (gpus, notes):
        watch = Watch(gpus, notes)
        try:
            free = bench.free() if bench.cuda else ""
            made = row.measure(bench)
        except torch.OutOfMemoryError:
            return {"cannot": f"needs more memory than the card has ({free} before)", "seconds": time.monotonic() - started}
        except Exception as error:  # of whatever kind: the other rows go on
            said = " ".join(str(error).split())
            return {"failed": said if isinstance(error, FitPruneError) else f"{type(error).__name__}: {said}"[:500]}
        watch.look()
        return _kept(made, time.monotonic() - started, list(watch.notes()))


def _kept(made: Measured, seconds: float, notes: list[str]) -> dict[str, Any]:
    if made.figure is None:
        return {"cannot": made.beside, "seconds": seconds}
    notes = list(dict.fromkeys([*made.raw.get("notes", ()), *notes]))
    return {"measured": made.figure, "beside": made.beside, "seconds": seconds, "notes": notes, "raw": dict(made.raw)}


def _said(row: Row, entry: dict[str, Any]) -> str:
    """One line for the terminal."""
    if "measured" in entry:
        return f"{row.unit.format(entry['measured'])} ({entry['seconds']:.0f} s)"
    return next(f"{kind}: {entry[kind]}" for kind in ("cannot", "failed") if kind in entry)


def _end_with_the_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(FAILED)


def main(asked: dict[str, Any]) -> int:
    """Measure a section; without one, print the setting as JSON."""
    device = device_of(asked["device"], asked["toy"])
    found = setting(device, asked["dtype"], asked["attention"], asked["toy"])
    if asked["section"] is None:
        print(json.dumps(found))
        return 0
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    (section,) = (section for section in SECTIONS if section.name == asked["section"])
    return measure(section, found, device, Record(Path(asked["out"])), asked["seconds"], asked["skip"])


def run(command: Callable[[], int]) -> int:
    """Without gradients, all of it."""
    with torch.no_grad():
        return exit_status(command)


if __name__ == "__main__":
    sys.exit(run(lambda: main(json.loads(sys.argv[1]))))
