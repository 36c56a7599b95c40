"""Does a pytest command line lead to a suites folder, and to which suites? Imports nothing: this runs in every
pytest run of the environment.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

DEST = "fitprune_"  # prefix of our names in pytest's one namespace of options
_MARK = re.compile(r"^fitprune_suites\s*=\s*True\b", re.MULTILINE)


def selects_suites(config: pytest.Config, args: list[str]) -> bool:
    """Whether a path among the arguments is a suites folder or in one; without any path, whether `testpaths` or the
    current folder is.

    In an xdist worker the controller has decided, and its options are there already.
    """
    if hasattr(config.option, f"{DEST}model"):
        return True
    here = config.invocation_params.dir
    paths = [path for path in _paths(here, args) if path.exists() or is_suites_folder(path.parent)]
    if not paths:
        paths = [here, *(config.rootpath / entry for entry in config.getini("testpaths"))]
    return any(is_suites_folder(path) or is_suites_folder(path.parent) for path in paths)


def selected_suites(here: Path, args: Iterable[str]) -> list[str]:
    """The names of the suites that pytest's positional arguments lead to, whether there is such a suite or not."""
    names: dict[str, None] = {}
    for path in _paths(here, args):
        files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
        names.update((file.stem.removeprefix("test_"), None) for file in files if is_suites_folder(file.parent))
    return list(names)


def is_suites_folder(folder: Path) -> bool:
    """Whether `folder/__init__.py` says `fitprune_suites = True`."""
    try:
        return bool(_MARK.search((folder / "__init__.py").read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


def _paths(here: Path, args: Iterable[str]) -> Iterator[Path]:
    """The arguments that may be paths: node ids without what follows `::`."""
    for token in args:
        if token and not token.startswith("-"):
            yield here / token.partition("::")[0]
