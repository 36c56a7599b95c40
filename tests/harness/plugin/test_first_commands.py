"""The commands that people type first: a family's name, no gate, a device that is not there."""

import json
import os
import subprocess

import pytest

from harness.results.store import Store
from tests.support import warm
from tests.support.suite_runs import PLUGIN, ROOT, SUITES, command, environment

pytest_plugins = ["pytester", "tests.support.suite_runs"]

NOTE = "llava-hr: llava-hr-tiny is taken, which ships with the package; llava-hr-7b is not on this machine; get it with *"
UNGATED = "no gate was asked for, so no drop fails a cell; --max-drop POINTS sets what one may lose"


@pytest.fixture(autouse=True)
def nothing_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_familys_name_is_said_in_header_table_and_result(run):
    result = run("--model", "llava-hr", "--pruner", "random", "--reduction", "0.5")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["fitprune: llava-hr-tiny (for llava-hr); *; no gate; results: *", NOTE])
    result.stdout.fnmatch_lines(["llava-hr-tiny (for llava-hr) (fake), *", NOTE])
    (read,), _ = Store(run.folder).read_all()
    assert (read.model, read.model_asked) == ("llava-hr-tiny", "llava-hr")
    assert "fitprune download llava-hr-7b" in read.model_note
    assert "--model llava-hr-tiny " in read.command


def test_the_cells_are_those_of_the_model_that_was_taken(run):
    run("--model", "llava-hr", "--pruner", "random", "--reduction", "0.5")
    result = run("--model", "llava-hr-tiny", "--pruner", "random", "--reduction", "0.5")
    result.stdout.fnmatch_lines(["cached: 1 of 1 cells *"])
    assert "for llava-hr" not in result.stdout.str()
    assert len(Store(run.folder).read_all().results) == 1


def test_one_model_by_two_names_runs_once_with_a_note(run):
    result = run("--model", "llava-hr", "--model", "llava-hr-tiny,llava-tiny", "--pruner", "random", "--reduction", "0.5")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["--model llava-hr and --model llava-hr-tiny are one model here, llava-hr-tiny: *run once"])
    result.stdout.fnmatch_lines(["llava-hr-tiny (for llava-hr) (fake)*", "random 0.5 *", "llava-tiny (fake)*"])


def test_a_family_without_a_model_here_is_one_line_and_status_4(run):
    result = run("--model", "qwen2.5-vl")
    assert result.ret == 4
    assert len([line for line in result.errlines + result.outlines if line.strip()]) == 1
    result.stderr.fnmatch_lines(["ERROR: 'qwen2.5-vl' names a family *'fitprune download qwen2.5-vl-7b' (17 GB)*"])
    assert not run.folder.exists()


def test_what_a_name_stands_for_is_decided_once(place, tmp_path):
    """Workers take what the process that was started took, not what lies there when they begin."""
    given = command(place, tmp_path, "-n", "2", str(SUITES / "test_gqa.py"))
    given[given.index("--model") + 1] = "llava-hr"
    (tmp_path / "appearing.py").write_text(
        "from pathlib import Path\n"
        "def pytest_sessionstart(session):\n"
        "    if not hasattr(session.config, 'workerinput'):\n"
        "        Path('llava-hr-7b').mkdir()\n"
        "        Path('llava-hr-7b/model.safetensors').touch()\n"
    )
    around = environment(tmp_path)
    around |= {"PYTHONPATH": f"{around['PYTHONPATH']}:{tmp_path}", "HF_HUB_CACHE": str(tmp_path / "hub")}
    ran = subprocess.run([*given, "-p", "appearing"], env=around, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results, _ = Store(tmp_path / "results").read_all()
    assert {(result.model, result.model_asked) for result in results} == {("llava-hr-tiny", "llava-hr")}


def test_without_a_gate_nothing_fails_and_a_line_says_so(run):
    result = run("--pruner", "dense,random", "--reduction", "0.9")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["fitprune: *; no gate; *", UNGATED])
    assert "50.0 (50.0 ± 21.7)" in result.stdout.str()
    assert "50.0 (50.0 ± 21.7) ✗" not in result.stdout.str()
    results, _ = Store(run.folder).read_all()
    assert {(read.verdict, read.gate, read.max_drop) for read in results} == {("", "", None)}
    assert not any("--max-drop" in read.command for read in results)
    assert run("--pruner", "dense,random", "--reduction", "0.9", "--max-drop", "5").ret == 1


@pytest.mark.parametrize("asked", [["--max-drop", "5"], ["--gate", "certified"], ["--max-drop", "pope:5"]])
def test_a_gate_is_what_was_asked_for(run, asked):
    result = run("--pruner", "random", "--reduction", "0.9", *asked)
    assert result.ret == 1
    assert UNGATED not in result.stdout.str()
    (read,), _ = Store(run.folder).read_all()
    assert (read.verdict, read.max_drop) == ("fail", 5 if asked[1] == "5" else 1)


@pytest.mark.parametrize("device", ["cuda:99", "cuda:98"])
def test_a_device_that_is_not_there_is_one_line_and_status_4(run, device):
    result = run("--device", device)
    assert result.ret == 4
    assert len([line for line in result.errlines + result.outlines if line.strip()]) == 1
    result.stderr.fnmatch_lines([f"ERROR: device '{device}' is not here: this machine has *"])
    assert not run.folder.exists()


def test_a_device_of_another_kind_is_one_line_and_status_4(run):
    result = run("--device", "mps", "-n", "2")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: unknown device 'mps'; write cpu, cuda, cuda:N or auto"])


def test_the_missions_command_ends_in_a_table(tmp_path):
    """Nothing made up: all suites, two workers, the family's name, in 80 columns; no other option but fewer questions. Fits and
    timings are short.
    """
    missions = [warm.python(), "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "suites/", "-n", "2", "--model", "llava-hr"]
    ran = subprocess.run(
        [*missions, "--limit", "2", "--reduction", "0.5", "--results", str(tmp_path / "results")],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
        | {"PYTEST_PLUGINS": "tests.support.short_cells"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    _, _, table = ran.stdout.partition("= accuracy against FLOPs =")
    *blocks, notes = table.split("\n\n")
    _, heading, *_, blocks[0] = blocks[0].split("\n", 4)
    assert heading.startswith("llava-hr-tiny (for llava-hr) (")
    heads, *rows = zip(*(block.splitlines() for block in blocks), strict=True)
    assert " ".join(heads).split()[8:] == ["GQA", "VQAv2", "TextVQA", "POPE", "MME", "ScienceQA"]
    names = [{line.split()[0] for line in row} for row in rows]
    assert names[0] == {"dense"}
    assert sorted(map(sorted, names[1:])) == [["fastv"], ["fitprune"], ["random"]]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80
    assert "llava-hr-7b is not on this machine; get it with" in notes
    assert UNGATED in notes
    records = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")]
    assert len(records) == 24
    assert {(record["model"], record["model_asked"]) for record in records} == {("llava-hr-tiny", "llava-hr")}
