"""Cores that this process may use: those it may be scheduled on, and no more than its control group's quota of time."""

import os
from pathlib import Path

CGROUP = Path("/proc/self/cgroup")
HIERARCHY = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """How many threads can run at once: the CPUs of the affinity mask, fewer where `cpu.max` gives less time; 1 at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas())]))


def _quotas() -> list[float]:
    """CPUs' worth of time that this process's control group and those above it allow; nothing without control groups.

    Version 2: a line `quota period` in `cpu.max`, with `max` for no quota (Linux kernel, Documentation/admin-guide/cgroup-v2).
    Version 1, where the root has a folder `cpu`: two files.
    """
    found = []
    for folder in _groups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            quota, period = _first_version(folder)
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(int(quota) / int(period))
    return found


def _groups() -> list[Path]:
    """The folders of this process's group and of those above it. A container may see its own group as the root."""
    folders = [HIERARCHY, HIERARCHY / "cpu"]
    try:
        lines = CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = HIERARCHY if not controllers else HIERARCHY / "cpu"
        if not controllers or "cpu" in controllers.split(","):
            own = root / path.strip("/")
            folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return list(dict.fromkeys(folders))


def _first_version(folder: Path) -> tuple[str, str]:
    try:
        return (folder / "cpu.cfs_quota_us").read_text().strip(), (folder / "cpu.cfs_period_us").read_text().strip()
    except OSError:
        return "", ""
