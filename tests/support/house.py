"""The shape of the source, read from it: modules, the imports between them, rings, and what has grown too large.

An import counts wherever it stands: at the top, in a function, for a type alone, or as a string that names a module (for
`importlib`, or in a table of names).
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("fitprune", "baselines", "harness", "suites", "reports", "training")
MOST_MODULES, MOST_LINES, MOST_CLASS_LINES = 16, 400, 220
SHORTEST_PASSAGE = 6  # lines
_NO_PASSAGE = (ast.Import, ast.ImportFrom, ast.Constant)  # or an expression that is a constant: a docstring
_NAMED = re.compile(rf"((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?::[\w.]+)?")


@dataclass
class House:
    """The modules of a source tree.

    Attributes:
        paths: module name -> its file.
        trees: module name -> its syntax tree.
        imports: module name -> the modules that it imports.
    """

    paths: dict[str, Path]
    trees: dict[str, ast.Module] = field(default_factory=dict)
    imports: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path = ROOT, packages: Iterable[str] = PACKAGES) -> "House":
        """Read the packages below `root`."""
        paths = {}
        for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            paths[name.removesuffix(".__init__")] = path
        house = cls(paths, {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items()})
        house.imports = {name: set(house._imported(name)) - {name} for name in paths}
        return house

    def _imported(self, name: str) -> Iterator[str]:
        for node in ast.walk(self.trees[name]):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}, line {node.lineno}: a relative import"
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (named := _NAMED.fullmatch(node.value)):
                wanted = [named[1]] if named[1] in self.paths else []
            else:
                continue
            yield from filter(None, map(self._module, wanted))

    def _module(self, name: str) -> str | None:
        """The module that provides `name`, itself a module or what one holds; None for other packages' names."""
        while name and name not in self.paths:
            name = name.rpartition(".")[0]
        return name or None

    def rings(self) -> list[list[str]]:
        """Groups of modules that import each other, directly or through others."""
        order: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        rings: list[list[str]] = []

        def visit(name: str) -> None:
            order[name] = low[name] = len(order)
            stack.append(name)
            for other in sorted(self.imports[name]):
                if other not in order:
                    visit(other)
                    low[name] = min(low[name], low[other])
                elif other in stack:
                    low[name] = min(low[name], order[other])
            if low[name] == order[name]:
                ring = stack[stack.index(name) :]
                del stack[stack.index(name) :]
                if len(ring) > 1:
                    rings.append(sorted(ring))

        for name in self.paths:
            if name not in order:
                visit(name)
        return rings

    def upward(self, layers: list[str]) -> list[str]:
        """Imports against the order of `layers`, lowest first; names in one line, parted by a space, are of equal height and
        do not import each other. The longest name that fits a module is its layer."""
        height = {name: level for level, line in enumerate(layers) for name in line.split()}

        def layer(module: str) -> str | None:
            while module and module not in height:
                module = module.rpartition(".")[0]
            return module or None

        wrong = []
        for name, others in self.imports.items():
            own = layer(name)
            for other in others:
                its = layer(other)
                if own is None or its is None or own == its:
                    continue
                if height[its] >= height[own]:
                    wrong.append(f"{name} imports {other}")
        return sorted(wrong)

    def too_large(self) -> list[str]:
        """Folders, files and classes above the limits."""
        modules: dict[Path, int] = defaultdict(int)
        found = []
        for name, path in self.paths.items():
            modules[path.parent] += 1
            lines = path.read_text(encoding="utf-8").count("\n")
            if lines > MOST_LINES:
                found.append(f"{name} has {lines} lines")
            for node in ast.walk(self.trees[name]):
                if isinstance(node, ast.ClassDef):
                    assert node.end_lineno is not None
                    if (lines := node.end_lineno - node.lineno + 1) > MOST_CLASS_LINES:
                        found.append(f"{name}.{node.name} has {lines} lines")
        return found + [f"{folder.name}/ has {count} modules" for folder, count in modules.items() if count > MOST_MODULES]

    def repeated(self) -> list[str]:
        """Passages of six or more lines that stand twice: for each its places, `module:line`.

        Signatures, docstrings, imports and lines of brackets alone do not count, nor do Triton kernels, which can call little.
        """
        places: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, path in self.paths.items():
            skipped = set(_no_passage(self.trees[name]))
            source = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            lines = [(number, text.strip()) for number, text in source if number not in skipped and re.search(r"\w", text)]
            for first in range(len(lines) - SHORTEST_PASSAGE + 1):
                passage = lines[first : first + SHORTEST_PASSAGE]
                places[tuple(text for _, text in passage)].append(f"{name}:{passage[0][0]}")
        return [" and ".join(found) for found in places.values() if len(found) > 1]


def _no_passage(tree: ast.Module) -> Iterator[int]:
    """The lines that `House.repeated` leaves out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(each) for each in node.decorator_list):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
        elif isinstance(node, ast.FunctionDef):
            yield from range(node.lineno, max(node.body[0].lineno, node.lineno + 1))
        elif isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
