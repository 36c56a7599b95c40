"""How many cores a process may use: its affinity mask and its control group's quota."""

import os

import pytest

from harness import cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight cores whose control groups the test writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "HIERARCHY", tmp_path / "sys")

    def write(own, **files):
        (tmp_path / "cgroup").write_text(own)
        for name, text in files.items():
            path = tmp_path / "sys" / name.replace("__", "/").replace("_max", ".max")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_without_control_groups_it_is_the_affinity_mask(machine):
    assert cores.available_cores() == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
        ("x y", 8),
    ],
)
def test_a_quota_of_a_container_that_sees_its_group_as_the_root(machine, quota, expected):
    machine("0::/\n", cpu_max=quota)
    assert cores.available_cores() == expected


def test_the_least_quota_of_all_groups_above_counts(machine):
    machine("0::/pod/job\n", pod__cpu_max="300000 100000", pod__job__cpu_max="max 100000", other__cpu_max="100000 100000")
    assert cores.available_cores() == 3


@pytest.mark.parametrize(("quota", "expected"), [("400000", 4), ("-1", 8)])
def test_the_first_version_of_control_groups(machine, tmp_path, quota, expected):
    machine("4:cpu,cpuacct:/job\n3:memory:/job\n")
    folder = tmp_path / "sys" / "cpu" / "job"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.available_cores() == expected


def test_at_least_one_core_on_this_machine():
    assert 1 <= cores.available_cores() <= os.cpu_count()
