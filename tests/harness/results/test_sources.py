"""Which sources count for whose answers."""

import shutil
import sys
from pathlib import Path

import pytest

import baselines
import fitprune
import harness
from baselines import Dense, FastV, PyramidDrop, VisionZip
from fitprune import FitPrune, Pruner
from harness.results import sources
from harness.results.sources import code_digest, folder_digest, is_ours

METHODS = (Dense, FastV, PyramidDrop, VisionZip, FitPrune)


def forget():
    for cached in (sources._code, sources._runtime, sources.package_digest):
        cached.cache_clear()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The packages in a folder where they may be edited, and are looked for."""
    for package in (fitprune, baselines, harness):
        home = Path(package.__file__).parent
        shutil.copytree(home, tmp_path / home.name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    plain = sources._source
    homes = {package.__name__: Path(package.__file__).parent for package in (fitprune, baselines, harness)}

    def source(module):
        found, home = plain(module), homes.get(module.partition(".")[0])
        return tmp_path / home.name / found.relative_to(home) if found and home else found

    monkeypatch.setattr(sources, "_source", source)
    forget()
    yield tmp_path
    forget()


def changed(copied, file):
    """The methods for which an edit of a file counts."""
    before = {method: code_digest(method) for method in METHODS}
    path = copied / file
    path.write_text(path.read_text() + "\n# edited\n")
    assert {method: code_digest(method) for method in METHODS} == before  # the process has loaded what was there
    forget()
    return {method.__name__ for method in METHODS if code_digest(method) != before[method]}


EVERYONE = {method.__name__ for method in METHODS}


@pytest.mark.parametrize(
    "file",
    [
        "fitprune/engine/prefill.py",
        "fitprune/scoring/column_sums.py",
        "fitprune/pruner.py",
        "harness/models/prompting.py",
        "harness/answering/generate.py",
        "harness/answers.py",
        "harness/tasks/reading.py",
        "harness/cost/flops.py",
    ],
)
def test_what_runs_for_all_counts_for_all(copied, file):
    assert changed(copied, file) == EVERYONE


@pytest.mark.parametrize(
    ("file", "whose"),
    [
        ("baselines/between_layers/fastv.py", {"FastV"}),
        ("baselines/shared/budget.py", {"FastV", "PyramidDrop", "VisionZip"}),
        ("baselines/shared/stages.py", {"PyramidDrop"}),
        ("baselines/shared/tower_attention.py", {"VisionZip"}),
        ("baselines/controls/dense.py", {"Dense"}),
    ],
)
def test_a_file_of_some_methods_counts_for_them(copied, file, whose):
    assert changed(copied, file) == whose


@pytest.mark.parametrize(
    "file",
    [
        "harness/statistics/drops.py",
        "harness/gate/wording.py",
        "harness/results/table.py",
        "harness/plugin/summary.py",
        "fitprune/cli/show.py",
        "baselines/in_tower/tome.py",
    ],
)
def test_what_is_made_of_answers_and_what_shows_them_counts_for_none(copied, file):
    assert changed(copied, file) == set()


def test_a_module_taken_from_a_package_counts(copied):
    path = copied / "baselines/between_layers/fastv.py"
    path.write_text("from baselines.shared import stages\n" + path.read_text())
    assert changed(copied, "baselines/shared/stages.py") == {"FastV", "PyramidDrop"}


def test_the_whole_package_of_anothers_method_counts(tmp_path, monkeypatch):
    package = tmp_path / "othermethods"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("helper.py", "deep/unused.py", "kernel.so", "notes.md"):
        (package / name).write_text("")
    (package / "method.py").write_text("from fitprune import Pruner\n\n\nclass Method(Pruner):\n    name = 'method'\n")
    monkeypatch.syspath_prepend(tmp_path)
    from othermethods.method import Method

    def digest():
        sources._code.cache_clear()
        sources.package_digest.cache_clear()
        return code_digest(Method)

    seen = [digest()]
    for name in ("helper.py", "deep/unused.py", "kernel.so", "method.py"):
        with (package / name).open("a") as file:
            file.write("# more\n")
        seen.append(digest())
    assert len(set(seen)) == 5
    (package / "notes.md").write_text("more")
    assert digest() == seen[-1]
    assert not is_ours(Method)


def test_a_method_without_a_file_is_found_by_no_other_process(monkeypatch):
    made = type("Typed", (Pruner,), {"__module__": "typed_in", "name": "typed"})
    monkeypatch.setitem(sys.modules, "typed_in", type(sys)("typed_in"))
    assert code_digest(made) == code_digest(made)
    first = code_digest(made)
    forget()
    assert code_digest(made) != first


def test_a_folder_is_what_its_files_hold(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "task.yaml").write_text("a: 1")
    first = folder_digest(tmp_path)
    (tmp_path / "__pycache__" / "x.pyc").write_text("more")
    assert folder_digest(tmp_path) == first
    (tmp_path / "task.yaml").write_text("a: 2")
    second = folder_digest(tmp_path)
    (tmp_path / "task.yaml").rename(tmp_path / "other.yaml")
    assert len({first, second, folder_digest(tmp_path)}) == 3
