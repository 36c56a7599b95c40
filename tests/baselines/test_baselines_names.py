"""`from baselines import FastV`, for every method, without loading torch before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import baselines
from baselines.registry import CLASS_PATHS, PRUNERS

OWN = {name: path for name, path in CLASS_PATHS.items() if path.startswith("baselines.")}


def test_every_method_is_a_public_name():
    assert sorted(baselines.__all__) == sorted(path.partition(":")[2] for path in OWN.values())
    for name, path in OWN.items():
        assert getattr(baselines, path.partition(":")[2]) is PRUNERS[name]
        assert path.partition(":")[2] in dir(baselines)
    with pytest.raises(AttributeError, match="FastW"):
        baselines.FastW  # noqa: B018


def test_type_checkers_see_the_same_names_as_the_registry():
    tree = ast.parse(Path(baselines.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {f"{node.module}:{alias.name}": alias.asname for node in block.body for alias in node.names}
    assert seen == {path: path.partition(":")[2] for path in OWN.values()}


def test_the_package_loads_no_torch():
    code = "import sys, baselines; dir(baselines); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
