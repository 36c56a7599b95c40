"""The folder of the mini data, which a package registers under the entry point group `fitprune.data`, as `mini`."""

import functools
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError

GROUP, NAME = "fitprune.data", "mini"


@functools.cache
def mini_folder() -> Path:
    """The folder. Raises FitPruneError, in one line, where no installed package has registered it, or it is not there."""
    hint = "install fitprune-bench (python -m pip install .), or take --data hub, or a folder with parquet files"
    entry = next(iter(metadata.entry_points(group=GROUP, name=NAME)), None)
    if entry is None:
        raise FitPruneError(f"the mini data are not in this installation: no package registers '{NAME}' for {GROUP}; {hint}")
    try:
        folder = Path(_value(entry))
    except (ImportError, AttributeError, TypeError) as error:
        raise FitPruneError(f"the mini data cannot be found through {entry.value}: {error}; {hint}") from None
    if not folder.is_dir():
        raise FitPruneError(f"the mini data are not in this installation ({folder}); {hint}")
    return folder


def _value(entry: metadata.EntryPoint) -> Any:
    """What an entry point names. Its package does not stay imported: pytest imports the suites itself, a copy of them too."""
    package = entry.module.partition(".")[0]

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == package]

    before = {name: sys.modules.pop(name) for name in loaded()}
    try:
        return entry.load()
    finally:
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(before)
