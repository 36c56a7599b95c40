"""The wheel, without the checkout: it runs a cell, and the command that the result records runs anywhere."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.support.warm import python

ROOT = Path(__file__).parents[1]
STORED = {"--build-option": ["--compression=stored"]}
PACKAGES = ("fitprune", "baselines", "harness", "suites", "reports")


def has_setuptools() -> bool:
    try:
        return int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment of variables in which the wheel's files come before all else, and `pytest` is a command."""
    place = tmp_path_factory.mktemp("wheel")
    source, site, scripts = place / "source", place / "site", place / "scripts"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    # What pip asks of setuptools, without compressing 48 MB of weights.
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(place)!r}, {STORED!r})"
    subprocess.run([sys.executable, "-c", build], check=True, capture_output=True, cwd=source)
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    shutil.rmtree(source)
    scripts.mkdir()
    shutil.copy(ROOT / "tests/support/short_cells.py", scripts)
    (scripts / "pytest").write_text(f"#!{python()}\nimport sys\nfrom pytest import console_main\nsys.exit(console_main())\n")
    (scripts / "pytest").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    path = os.pathsep.join([str(scripts), kept.get("PATH", os.defpath)])
    kept |= {"PYTHONPATH": f"{site}{os.pathsep}{scripts}", "PATH": path, "PYTEST_PLUGINS": "short_cells"}
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.skipif(os.name != "posix" or not has_setuptools(), reason="the wheel is built with setuptools 77 or newer, here")
def test_a_cell_runs_without_the_checkout_and_so_does_the_command_that_it_records(installed, tmp_path):
    def typed(line, folder):
        (tmp_path / folder).mkdir()
        ran = subprocess.run(line, shell=True, env=installed, cwd=tmp_path / folder, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        return ran.stdout

    there = {path.relative_to(ROOT / "suites/data") for path in (ROOT / "suites/data").rglob("*") if path.is_file()}
    site = Path(installed["PYTHONPATH"].partition(os.pathsep)[0])
    place = site / "suites/data"
    assert {path.relative_to(place) for path in place.rglob("*") if path.is_file()} == there
    where = typed(f"{python()} -c 'import harness, suites; print(harness.__file__, suites.__file__)'", "where")
    assert where.count(str(site)) == 2
    typed("pytest --pyargs suites.test_pope --pruner random --reduction 0.5 --limit 4 --results r --batch-size 2", "first")
    (first,) = (tmp_path / "first/r").glob("*.json")
    command = json.loads(first.read_text())["command"]
    assert command.startswith("pytest --pyargs suites.test_pope --model llava-tiny ")
    typed(command, "second")
    (second,) = (tmp_path / "second/results").glob("*.json")
    assert second.name == first.name  # the key is the same, so the same was measured


@pytest.mark.exhaustive
@pytest.mark.skipif(os.name != "posix" or not has_setuptools(), reason="the wheel is built with setuptools 77 or newer, here")
def test_what_failed_last_is_found_without_the_checkout(installed, tmp_path):
    command = "pytest --pyargs suites.test_pope --model llava-tiny --pruner random --reduction 0.9 --limit 8 --max-drop 0"
    first = subprocess.run(
        f"{command} --gate certified", shell=True, env=installed, cwd=tmp_path, capture_output=True, text=True
    )
    assert first.returncode == 1, first.stdout[-3000:] + first.stderr[-3000:]
    again = command.replace("--pyargs suites.test_pope", "--lf") + " --gate significant --max-drop 100"
    second = subprocess.run(again, shell=True, env=installed, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert "cached: 1 of 1 cells" in second.stdout
