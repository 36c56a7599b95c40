"""What the source may not do: import against the grain, unpickle, or run code from a checkpoint."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.releases
ROOT = Path(__file__).parents[1]
ROOMS = ["fitprune", "baselines", "harness", "suites", "reports", "training"]
MAY_IMPORT = {
    "fitprune": {"fitprune"},
    "baselines": {"baselines", "fitprune"},
    "harness": {"harness", "baselines", "fitprune"},
    "suites": {"suites", "harness", "baselines", "fitprune"},
    "reports": {"reports", "harness", "baselines", "fitprune"},
    "training": {"training", "harness", "baselines", "fitprune"},
}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_there_is_something_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} >= {"fitprune", "baselines", "harness"}


@pytest.fixture(scope="module")
def trees():
    """Path from the root → syntax tree. All files are one test's: a test of each would take more time than the check."""
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_imports_point_one_way(trees):
    for path, tree in trees.items():
        names, room = set(imported(tree)), path.parts[0]
        assert names & {*ROOMS, "tests"} <= MAY_IMPORT[room], path
        if room == "fitprune":
            assert not names & {"pytest", "lmms_eval", "datasets", "pandas"}, path


def test_nothing_is_unpickled_and_no_remote_code_runs(trees):
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib"}, path
            if isinstance(node, ast.Call):
                where = f"{path}, line {node.lineno}"
                if ast.unparse(node.func) == "torch.load":
                    safe = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert safe.get("weights_only") == "True", f"{where}: torch.load runs code without weights_only=True"
                for keyword in node.keywords:
                    refused = keyword.arg in ("trust_remote_code", "allow_pickle") and not (
                        isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                    )
                    assert not refused, f"{where}: {keyword.arg}"


def test_listing_cells_does_not_load_torch():
    listing = "import harness.plugin.options, harness.tasks.build, baselines.registry as r; list(r.PRUNERS)"
    code = f"import sys; {listing}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"
