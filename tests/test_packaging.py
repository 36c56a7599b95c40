"""What a wheel must carry, and what it announces."""

import tomllib
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fitprune.models.releases import TESTED

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


# Not in requirements/oldest.txt, which says why.
AT_HAND = {"torch", "triton"}


def declared() -> dict[str, Requirement]:
    """What pyproject.toml declares, in whatever extra, without the project's own name."""
    project = PROJECT["project"]
    every = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    requirements = [Requirement(line) for line in every]
    return {canonicalize_name(one.name): one for one in requirements if one.name != project["name"]}


def bounds(requirement: Requirement, operator: str) -> list[str]:
    return [one.version for one in requirement.specifier if one.operator == operator]


def test_the_oldest_environment_holds_exactly_the_lower_bounds() -> None:
    lines = (ROOT / "requirements" / "oldest.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    lower = {name: bounds(one, ">=") for name, one in declared().items() if name not in AT_HAND}
    assert {canonicalize_name(one.name): bounds(one, "==") for one in pinned} == {n: b for n, b in lower.items() if b}
    assert {canonicalize_name(one.name) for one in pinned if len(one.specifier) != 1} == set()


def test_what_the_program_needs_has_a_lower_bound() -> None:
    stubs = {name for name, one in declared().items() if not bounds(one, ">=")}
    assert stubs == {"pandas-stubs", "types-tabulate", "types-tqdm"}


def test_the_declared_range_of_transformers_is_the_tested_one() -> None:
    transformers = declared()["transformers"]
    major, minor = TESTED[1].split(".")
    assert bounds(transformers, ">=") == [TESTED[0]]
    assert bounds(transformers, "<") == [f"{major}.{int(minor) + 1}"]
