"""Suites chosen by name, whose files run then, and suites of other packages."""

import dataclasses
from importlib.metadata import EntryPoint

import pytest

import harness.answering.trial
from fitprune import registries
from fitprune.errors import FitPruneError
from harness.bench.again import suites_command
from harness.cells import CellSettings
from harness.plugin.selection import left_out, selected_suites, without_file
from harness.tasks import SUITES, specs
from harness.tasks.build import task_config
from harness.tasks.isolation import lmms_eval_evaluator
from harness.tasks.specs import find_suite, package_of
from tests.support import own_task
from tests.support.stub_rows import columns_of, write_stub
from tests.support.suite_runs import SUITES as FOLDER

pytest_plugins = ["pytester", "tests.support.suite_runs"]
WHOLE = str(FOLDER)
lmms_eval_evaluator()
import harness.tasks.reading  # noqa: E402, F401


def cells(result):
    return [line.rpartition("::")[2] for line in result.outlines if "::test_" in line]


@pytest.fixture
def listed(run):
    def list_cells(*arguments, suites=()):
        return run("--pruner", "dense", "--collect-only", "-q", *arguments, suites=suites)

    return list_cells


def test_suites_by_name(listed):
    assert cells(listed(WHOLE, "--suite", "pope,gqa")) == ["test_gqa[m-dense]", "test_pope[m-dense]"]
    assert cells(listed(WHOLE, "--suite", "vqav2_val")) == ["test_vqav2[m-dense]"]  # by its task's name


def test_a_task_that_is_no_suite_runs_in_the_file_of_tasks(listed, place):
    write_stub(place / "d", "simplevqa", None, "test", columns_of(task_config("simplevqa")))
    expected = ["test_lmms[m-dense-simplevqa]", "test_pope[m-dense]"]
    assert cells(listed(WHOLE, "--suite", "simplevqa,pope")) == expected
    assert cells(listed("--suite", "simplevqa", suites=("lmms",))) == expected[:1]
    assert cells(listed("--suite", "simplevqa,pope", suites=("lmms", "pope"))) == expected


@pytest.mark.parametrize(
    ("arguments", "suites", "words"),
    [
        (["--suite", "popee"], ("pope",), "unknown suite 'popee'; did you mean *pope"),
        (["--suite", "gqa"], ("pope",), "--suite gqa runs in none of the files that were named: *test_pope.py"),
        ([], ("lmms",), "test_lmms.py runs tasks of lmms-eval by name: give --suite TASK[[]:METRIC]"),
        (["--suite", "mvbench_moving_count"], ("lmms",), "*its task is about video*tasks are asked about images"),
        (["--suite", "pope", "--judge", "gpt"], ("pope",), "*--judge gpt is no address of an endpoint*"),
        (["--suite", "simplevqa:none"], ("lmms",), "*simplevqa:none*has no metric none; it has exact_match*"),
    ],
)
def test_what_no_suite_is_is_refused_in_one_line(listed, arguments, suites, words):
    result = listed(*arguments, suites=suites)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: *{words}*"])


def test_the_default_run_is_the_everyday_suites(listed, monkeypatch):
    everyday = [f"test_{name}[m-dense]" for name, spec in sorted(SUITES.items()) if spec.everyday]
    assert sorted(cells(listed(WHOLE))) == everyday
    monkeypatch.setitem(specs._SHIPPED, "mme", dataclasses.replace(SUITES["mme"], everyday=False))
    assert sorted(cells(listed(WHOLE))) == [cell for cell in everyday if "mme" not in cell]
    assert cells(listed(suites=("mme",))) == ["test_mme[m-dense]"]  # by its file
    assert cells(listed(WHOLE, "--suite", "mme")) == ["test_mme[m-dense]"]


def test_files_and_names(tmp_path):
    (tmp_path / "__init__.py").write_text("fitprune_suites = True\n")
    for name in ("gqa", "a_b", "lmms"):
        (tmp_path / f"test_{name}.py").write_text("")
    assert selected_suites(tmp_path, ["."], unasked=["gqa"]) == ["a-b"]
    assert selected_suites(tmp_path, ["test_gqa.py"], unasked=["gqa"]) == ["gqa"]
    assert selected_suites(tmp_path, ["."], ["a-b", "task:metric"]) == ["a-b", "task:metric"]
    assert without_file(["gqa", "a-b", "task:metric"], tmp_path) == ["task:metric"]
    assert not left_out(tmp_path / "test_a_b.py", ["a-b"], (), by_name=False)
    assert left_out(tmp_path / "test_lmms.py", ["gqa"], (), by_name=True)


def test_a_cell_of_a_task_says_how_it_is_run_again():
    command = suites_command(["gqa", "mmmu_val:mmmu_acc"], "m", ["dense"], CellSettings(judge="http://h/v1"))
    assert command.startswith("pytest --pyargs suites.test_gqa suites.test_lmms --suite gqa,mmmu_val:mmmu_acc --model m")
    assert command.endswith("--judge http://h/v1")
    assert "--suite" not in suites_command(["gqa"], "m", ["dense"], CellSettings())


@pytest.fixture
def entered(monkeypatch):
    """Registers entry points, as other packages do."""

    def register(**entries):
        found = [EntryPoint(name, value, specs.GROUP) for name, value in entries.items()]
        monkeypatch.setattr(registries, "entry_points", lambda group: found if group == specs.GROUP else [])
        vars(specs._registry).pop("others", None)
        find_suite.cache_clear()

    yield register
    vars(specs._registry).pop("others", None)
    find_suite.cache_clear()


def test_a_suite_of_another_package_is_found(entered, monkeypatch, tmp_path):
    spec = own_task.write_task(tmp_path / "task", ["share"])
    monkeypatch.setattr(own_task, "COLORS", spec, raising=False)
    entered(colors="tests.support.own_task:COLORS")
    assert find_suite("colors") is spec
    assert list(SUITES)[-1] == "colors"
    assert package_of(spec) == "tests.support.own_task"
    assert package_of(find_suite("colors:share")) == "tests.support.own_task"
    assert package_of(SUITES["gqa"]) == ""


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"colors": "tests.support.own_task:NOTHING"}, "suite 'colors' cannot be loaded from tests.support.own_task:NOTHING"),
        ({"colors": "tests.support.own_task:YAML"}, r"registered as tests.support.own_task:YAML, which is no harness.tasks"),
        ({"colours": "tests.support.own_task:COLORS"}, "suite 'colours' is registered as .*, which calls itself 'colors'"),
        (
            {"gqa": "tests.support.own_task:COLORS"},
            "two suites are called 'gqa': this package's and tests.support.own_task:COLORS",
        ),
    ],
)
def test_an_entry_point_that_is_no_suite_is_refused_in_one_line(entered, monkeypatch, tmp_path, entries, words):
    monkeypatch.setattr(own_task, "COLORS", own_task.write_task(tmp_path / "task", ["share"]), raising=False)
    entered(**entries)
    with pytest.raises(FitPruneError, match=words):
        [*map(find_suite, entries), *SUITES]
