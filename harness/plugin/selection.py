"""Whether a pytest command line leads to a suites folder, and to which suites. Imports nothing: this runs in every pytest
run of the environment.
"""

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

LMMS = "lmms"  # of the file that runs suites without a file
DEST = "fitprune_"  # prefix of our names in pytest's one namespace of options
_AGAIN = frozenset({"--lf", "--last-failed", "--ff", "--failed-first"})
_FLAGS = _AGAIN | {"-q", "-qq", "-v", "-vv", "-s", "-x", "--pyargs"}
_MARK = re.compile(r"^fitprune_suites\s*=\s*True\b", re.MULTILINE)


def selects_suites(config: pytest.Config, args: list[str]) -> bool:
    """Whether a path among the arguments is a suites folder or in one, or with `--pyargs` a module; without any path, whether
    `testpaths` or the current folder is, or with `--lf` or `--ff` a test that failed last.

    In an xdist worker the controller has decided, and its options are there already.
    """
    if hasattr(config.option, f"{DEST}model"):
        return True
    here = config.invocation_params.dir
    paths = [path for path in _paths(here, args) if path.exists() or is_suites_folder(path.parent)]
    if not paths:
        paths = [here, *(config.rootpath / entry for entry in config.getini("testpaths"))]
    if any(is_suites_folder(path) or is_suites_folder(path.parent) for path in paths):
        return True
    return bool(failed_suites(config, args))


def missing_suites(here: Path, args: list[str]) -> str | None:
    """The first argument that means a `suites` folder which is not there."""
    if "--pyargs" in args:
        return None
    for token in _bare(args):
        path = Path(token.partition("::")[0])
        if not token.startswith("-") and path.parts[:1] == ("suites",) and not (here / path).exists():
            return token
    return None


def failed_suites(config: pytest.Config, args: list[str]) -> list[str]:
    """The files of suites in which tests failed last, if the command line asks for these and names no path."""
    if not _AGAIN.intersection(args) or any(path.exists() for path in _paths(config.invocation_params.dir, _bare(args))):
        return []
    try:
        nodes = json.loads((config.rootpath / config.getini("cache_dir") / "v/cache/lastfailed").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    files = dict.fromkeys(_file(config.rootpath, *node.partition("::")[::2]) for node in nodes)
    return [str(file) for file in files if file is not None and file.is_file() and is_suites_folder(file.parent)]


def _bare(args: list[str]) -> list[str]:
    """The arguments without what follows an option: that is its value, which may be a path as well."""
    return [token for before, token in pairwise(["", *args]) if not before.startswith("-") or "=" in before or before in _FLAGS]


def _file(root: Path, place: str, test: str) -> Path | None:
    """The file of a test that pytest remembers. Of one outside its root folder it remembers none; then it is the installed
    suites', where these have one of its name.
    """
    installed = _module(f"suites.{test.partition('[')[0]}")
    return root / place if (root / place).is_file() else installed


def selected_suites(here: Path, args: Iterable[str], named: Iterable[str] = (), unasked: Iterable[str] = ()) -> list[str]:
    """The names of the suites that pytest's positional arguments lead to, whether there is such a suite or not: of a folder
    all but those that are not run `unasked`. Where suites are `named`, these: they run in their files, or in that for others.

    Raises pytest.UsageError for a suite whose file is none of those that were named, and for the file of all others by itself.
    """
    named = list(named)
    files = {file: path.is_file() for path in _paths(here, args) for file in _files(path)}
    by_file = {file: suite_of(file.stem) for file in files}
    if not named:
        if any(suite == LMMS and files[file] for file, suite in by_file.items()):
            raise pytest.UsageError(f"test_{LMMS}.py runs tasks of lmms-eval by name: give --suite TASK[:METRIC]")
        left = {*unasked, LMMS}
        return list(dict.fromkeys(suite for file, suite in by_file.items() if files[file] or suite not in left))
    for suite in named:
        if not {suite, LMMS}.intersection(by_file.values()) and files:
            raise pytest.UsageError(f"--suite {suite} runs in none of the files that were named: {', '.join(map(str, files))}")
    return named


def suite_of(test: str) -> str:
    """The suite of a test's name, or of its file's."""
    return test.removeprefix("test_").replace("_", "-")


def without_file(suites: Iterable[str], folder: Path) -> list[str]:
    """Which suites have no file of their own in a folder of suites."""
    return [suite for suite in suites if not (folder / f"test_{suite.replace('-', '_')}.py").is_file()]


def left_out(file: Path, asked: Iterable[str], unasked: Iterable[str], by_name: bool) -> bool:
    """Whether a file of a suites folder is not run: where suites are `asked` for, any other; else, unless it was given
    `by_name`, one that is not run `unasked`.
    """
    asked, suite = list(asked), suite_of(file.stem)
    if suite == LMMS:
        return not without_file(asked, file.parent)
    return suite not in asked if asked else not by_name and suite in unasked


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
    return [file for file in files if is_suites_folder(file.parent)]


def is_suites_folder(folder: Path) -> bool:
    """Whether `folder/__init__.py` says `fitprune_suites = True`."""
    try:
        return bool(_MARK.search((folder / "__init__.py").read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


def _paths(here: Path, args: Iterable[str]) -> Iterator[Path]:
    """The arguments that may be paths: node ids without what follows `::`."""
    args = list(args)
    for token in args:
        if token and not token.startswith("-"):
            name = token.partition("::")[0]
            module = _module(name) if "--pyargs" in args else None
            yield here / name if module is None else module


def _module(name: str) -> Path | None:
    """Where a dotted name's package or module is, without importing either; None where it names none."""
    top, *inside = name.split(".")
    try:
        spec = importlib.util.find_spec(top) if top.isidentifier() else None
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *inside)
    return path.with_suffix(".py") if inside and path.with_suffix(".py").is_file() else path
