"""Inside fitprune nothing imports upward: not at the top of a file, not in a function, not for a type, not by a string."""

import ast
from pathlib import Path

import pytest

import fitprune

ROOT = Path(fitprune.__file__).parent

# Lowest first; what stands in one line may not import each other. `__init__` hands names on, `__main__` calls all.
LAYERS = [
    ["errors", "files"],
    ["models", "scoring"],
    ["interface"],
    ["engine"],
    ["pruner"],
]
CHECKED = [name for layer in LAYERS for name in layer]


def modules_of(name):
    path = ROOT / name
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def rank(name):
    return next((number for number, layer in enumerate(LAYERS) if name in layer), len(LAYERS))


def imported(tree):
    """Names of fitprune's parts that a file imports anywhere, and those that strings in it name as modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            if node.module == "fitprune":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("fitprune."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fitprune."))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            named = ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else ast.unparse(node.args[0])
            yield named.split("fitprune.")[-1].split(".")[0]


@pytest.mark.parametrize("name", CHECKED)
def test_nothing_imports_upward(name):
    for path in modules_of(name):
        for other in set(imported(ast.parse(path.read_text(encoding="utf-8")))) - {name}:
            if (ROOT / other).is_dir() or (ROOT / f"{other}.py").exists():
                assert rank(other) < rank(name), f"{path.relative_to(ROOT)} imports {other}"


def test_a_plugin_imports_from_the_root():
    names = ["VisualTokens", "Attention", "Hooks", "DecoderSizes", "Selection", "Trace", "TowerTokens", "Vision", "Pruner"]
    for name in names:
        assert getattr(fitprune, name).__name__ == name
        assert name in fitprune.__all__
