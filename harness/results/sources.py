"""`code_digest`: one digest of all source files that can touch the answers of a method's cells.

Sources are read once a process, in milliseconds: what a process has loaded does not change when its files are edited.
"""

import ast
import functools
import hashlib
import importlib.util
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fitprune import Pruner

# The rooms of harness that answer questions, or decide which are asked and how; what is made of answers is not among them.
ANSWERING = ("answering", "bench", "cost", "models", "pruners", "tasks")
# Compiled parts of a plug-in count as well.
_SUFFIXES = frozenset({".py", ".pyx", ".so", ".pyd", ".cu", ".cpp"})
# Whose versions the key covers, and whose files it need not.
_VERSIONED = frozenset({*sys.stdlib_module_names, "torch", "transformers", "fitprune", "harness"})


def code_digest(method: "type[Pruner]") -> str:
    """12 hex digits over the sources that run when a method is evaluated.

    They are those of `fitprune` and of harness's `ANSWERING` rooms; of `baselines` the modules that the method is made of, so
    that the dense model and the other methods are not measured anew while one is being written; and the whole package of a
    method that another package brings. What that package imports from others still is covered by nothing but its own changes.
    """
    return _code(method.__qualname__, *sorted({base.__module__ for base in method.__mro__}))


def code_of(pruner: "Pruner") -> str:
    """The `code_digest` of a pruner's class; of several composed, one over that of each as well."""
    kinds = [type(pruner), *(type(member) for member in pruner.members if member is not pruner)]
    digests = [code_digest(kind) for kind in kinds]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()[:12]


def is_ours(method: "type[Pruner]") -> bool:
    """Whether this package brings a method."""
    return method.__module__.partition(".")[0] in ("fitprune", "baselines")


def folder_digest(folder: Path) -> str:
    """12 hex digits over the names and contents of a folder's files, those of an interpreter's caches left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return _digest(files, folder)[:12]


@functools.cache
def _code(name: str, *modules: str) -> str:
    """Of a class of that name, whose bases and own definition are in these modules."""
    total = hashlib.sha256(f"{name} {_runtime()}".encode())
    for module in modules:
        package = module.partition(".")[0]
        if package == "baselines":
            total.update(_digest(map(_source, _closure(module))).encode())
        elif package not in _VERSIONED:
            total.update(package_digest(module).encode())
    return total.hexdigest()[:12]


@functools.cache
def _runtime() -> str:
    """Of everything that all methods have in common."""
    fitprune, harness = _folder("fitprune"), _folder("harness")
    engine = [path for path in fitprune.rglob("*.py") if path.relative_to(fitprune).parts[0] != "cli"]
    rooms = [path for room in ANSWERING for path in (harness / room).rglob("*.py")]
    return _digest(engine, fitprune) + _digest([*harness.glob("*.py"), *rooms], harness)


def _folder(package: str) -> Path:
    source = _source(package)
    assert source is not None
    return source.parent


def _closure(module: str) -> set[str]:
    """A module of `baselines` and all those that it imports, directly or not."""
    found, left = set(), [module]
    while left:
        name = left.pop()
        if name not in found and (source := _source(name)) is not None:
            found.add(name)
            left += _imported(source)
    return found


def _imported(source: Path) -> list[str]:
    """What a file imports of `baselines`: modules, and names in them that may be modules, too."""
    found = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith("baselines.")]


def _source(module: str) -> Path | None:
    """A module's file; None for a name that is no module's."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    origin = spec.origin if spec is not None else getattr(sys.modules.get(module), "__file__", None)
    return Path(origin) if origin and Path(origin).is_file() else None


@functools.cache
def package_digest(module: str) -> str:
    """Of the package that a module is of, or of its one file. What has no file is never found again by another process."""
    top = module.partition(".")[0]
    places = getattr(sys.modules.get(top), "__path__", None)
    if places:
        return "".join(
            _digest([path for path in Path(place).rglob("*") if path.suffix in _SUFFIXES], Path(place)) for place in places
        )
    source = _source(module)
    return uuid.uuid4().hex if source is None else _digest([source])


def _digest(files: "Iterable[Path | None]", root: Path | None = None) -> str:
    """SHA-256 over the names, below `root` where there is one, and the contents of files."""
    total = hashlib.sha256()
    for path in sorted(path for path in files if path is not None):
        total.update(f"{path.relative_to(root) if root else path.name}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
