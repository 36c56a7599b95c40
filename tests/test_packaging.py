"""What a wheel must carry, and what it announces."""

import tomllib
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_data_file_of_a_package_is_declared() -> None:
    declared = PROJECT["tool"]["setuptools"]["package-data"]
    for package in ("fitprune", "baselines", "harness", "suites", "reports"):
        files = (path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*") if path.is_file())
        data = [str(path) for path in files if path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts]
        # A measured leaderboard is kept in the repository to be read there; it is no part of the package.
        data = [name for name in data if (package, name.partition("/")[0]) != ("reports", "embedded")]
        patterns = [pattern.replace("**/", "*") for pattern in declared.get(package, [])]
        assert [name for name in data if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_training_is_no_part_of_the_wheel() -> None:
    include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert not any(fnmatch("training", pattern) for pattern in include)


def test_every_folder_of_code_is_a_package() -> None:
    for package in ("fitprune", "baselines", "harness", "suites", "reports", "training"):
        folders = {path.parent for path in (ROOT / package).rglob("*.py")}
        assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_entry_points_load() -> None:
    declared = PROJECT["project"]["entry-points"]
    for group, targets in declared.items():
        installed = {point.name: point for point in entry_points(group=group)}
        for name in targets:
            assert installed[name].load() is not None
