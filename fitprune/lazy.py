"""`importing`: a package's `__getattr__`, which imports a name when it is asked for.

torch and transformers take seconds to import; a command line that only checks its input should not wait for them.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def importing(package: str, homes: Mapping[str, str], modules: Collection[str] = ()) -> Callable[[str], Any]:
    """The `__getattr__` of `package`: `homes` gives the module of each name; `modules` are modules of the package itself."""

    def __getattr__(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return __getattr__
