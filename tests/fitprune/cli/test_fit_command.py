"""`fitprune fit`, as a user types it."""

import importlib.metadata
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import termios
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import fitprune.fitting.batches
from fitprune import Recipe
from fitprune.__main__ import main
from tests.support import warm

pytestmark = pytest.mark.releases
SAMPLES = Path(__file__).parents[3] / "suites" / "data" / "calibration.parquet"
TINY = ("--model", "llava-tiny", "--device", "cpu")


def fit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [warm.python(), "-m", "fitprune", "fit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_several_budgets_go_into_a_folder_with_where_they_are_from(tmp_path: Path) -> None:
    """The command of the guide."""
    options = ["--reduction", "0.3,0.5,0.7", "--data", "mini", "--samples", "8", "-o", "recipes/"]
    done = fit(*TINY, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal
    assert sorted(path.name for path in (tmp_path / "recipes").iterdir()) == [
        f"recipe-{budget}.json" for budget in ("0.3", "0.5", "0.7")
    ]
    assert len(done.stdout.splitlines()) == 3
    for budget in (0.3, 0.5, 0.7):
        recipe = Recipe.load(tmp_path / "recipes" / f"recipe-{budget}.json")
        assert budget <= recipe.reduction < budget + 0.01
        assert f"recipe-{budget}.json: saves {recipe.reduction:.1%}" in done.stdout
        assert recipe.visual_tokens == 144
        made = recipe.provenance
        assert made["model"] == "llava-tiny"
        assert len(made["revision"]) == 12
        assert made["data"].items() >= {"id": "mini", "samples": 8, "visual_tokens": 144}.items()
        assert made["budget"]["asked"] == budget
        assert made["budget"]["reached"] == pytest.approx(recipe.reduction, abs=1e-6)
        assert made["mode"] == "sequential"
        assert 0 < made["alpha"] <= 1
        assert len(made["statistics"]) >= 16
        assert made["versions"]["fitprune-bench"] == importlib.metadata.version("fitprune-bench")
        assert str(tmp_path) not in json.dumps(made)


def test_one_budget_goes_into_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--reduction", "0.6", "--samples", "4", "--mode", "one-pass", "-o", "recipe.json"]
    assert main(["fit", *TINY, *options]) == 0
    assert capsys.readouterr().out.startswith("recipe.json: saves 60.")
    assert list(here.iterdir()) == [here / "recipe.json"]
    assert Recipe.load("recipe.json").provenance["mode"] == "one-pass"


def test_data_of_a_folder_are_named_by_it_and_their_digest(here: Path) -> None:
    digests = []
    for name, rows in (("mine", 5), ("other", 6)):
        (here / name).mkdir()
        pq.write_table(pq.read_table(SAMPLES).slice(0, rows), here / name / "calibration.parquet")
        options = ["--reduction", "0.5", "--samples", "4", "--mode", "one-pass"]
        assert main(["fit", *TINY, *options, "--data", f"./{name}/", "-o", f"{name}/recipe.json"]) == 0
        data = Recipe.load(f"{name}/recipe.json").provenance["data"]
        assert data["id"] == name
        digests.append(data["digest"])
    assert len(set(digests)) == 2


def test_a_model_in_a_folder_is_named_by_it(here: Path) -> None:
    from harness.models.registry import embedded_folder

    shutil.copytree(embedded_folder("llava-tiny"), here / "my-llava")
    options = ["--reduction", "0.5", "--samples", "4", "--mode", "one-pass", "-o", "recipe.json"]
    assert main(["fit", "--model", str(here / "my-llava"), "--device", "cpu", *options]) == 0
    assert Recipe.load("recipe.json").provenance["model"] == "my-llava"


@pytest.mark.exhaustive  # by default tests/fitprune/fitting/test_interrupted.py
def test_ctrl_c_keeps_what_there_is_and_the_same_command_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["fit", *TINY, "--reduction", "0.3,0.6", "--samples", "24", "--batch-size", "4", "-o", "my recipes/"]
    assert main([*command[:-1], "whole/"]) == 0
    capsys.readouterr()

    measured, measure = [], fitprune.fitting.batches.measure

    def counted(*arguments, stop_at=None):
        if len(measured) == stop_at:
            signal.raise_signal(signal.SIGINT)
        measured.append(arguments)
        return measure(*arguments)

    # pytest itself may run where Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(fitprune.fitting.batches, "measure", lambda *arguments: counted(*arguments, stop_at=4))
        assert main(command) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = capsys.readouterr()
    kept = Path("my recipes") / ".fitprune-statistics"
    assert out == ""
    assert err.splitlines() == [
        f"interrupted: 16 of 24 samples are kept in {kept}; go on with: {shlex.join(['python', '-m', 'fitprune', *command])}"
    ]
    assert [path.name for path in Path("my recipes").iterdir()] == [kept.name]

    measured.clear()
    monkeypatch.setattr(fitprune.fitting.batches, "measure", counted)
    assert main(shlex.split(err.rpartition("go on with: python -m fitprune ")[2])) == 0
    assert len(measured) == 2  # the two batches of four that were not there
    assert sorted(path.name for path in Path("my recipes").iterdir()) == ["recipe-0.3.json", "recipe-0.6.json"]
    for name in ("recipe-0.3.json", "recipe-0.6.json"):
        resumed, whole = Recipe.load(Path("my recipes") / name), Recipe.load(Path("whole") / name)
        assert resumed.drop == whole.drop
        assert resumed.provenance["statistics"] == whole.provenance["statistics"]


@pytest.mark.exhaustive
def test_a_folder_to_keep_stays_and_serves_another_budget(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["fit", *TINY, "--samples", "16", "--keep", "kept"]
    assert main([*command, "--reduction", "0.3", "-o", "a.json"]) == 0
    assert any((here / "kept").iterdir())

    def never(*_):
        raise AssertionError("statistics are there and were measured again")

    monkeypatch.setattr(fitprune.fitting.batches, "measure", never)
    assert main([*command, "--reduction", "0.6", "-o", "b.json"]) == 0
    assert sorted(path.name for path in here.iterdir()) == ["a.json", "b.json", "kept"]


def test_a_budget_out_of_reach_says_what_is_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", *TINY, "--samples", "16", "--mode", "one-pass", "--reduction", "0.5,0.99", "-o", "recipes"]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1  # the budget that can be reached was written
    (line,) = err.splitlines()
    assert "cannot save 99.0%" in line
    kept = Path("recipes") / ".fitprune-statistics"
    assert f"The statistics are kept in {kept}" in line
    assert sorted(path.name for path in (here / "recipes").iterdir()) == [kept.name, "recipe-0.5.json"]


def test_a_terminal_shows_progress_with_the_time_left(tmp_path: Path) -> None:
    parent, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    command = [warm.python(), "-m", "fitprune", "fit", *TINY, "--reduction", "0.5", "--samples", "8", "--batch-size", "1"]
    done = subprocess.Popen([*command, "-o", "recipe.json"], stdout=subprocess.PIPE, stderr=terminal, cwd=tmp_path)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(parent, 65536):
            shown += part
    except OSError:  # how a terminal that was closed reads on Linux
        pass
    finally:
        os.close(parent)
    assert done.wait(300) == 0
    bars = [line.decode() for line in shown.replace(b"\n", b"\r").split(b"\r") if b"fit: statistics" in line]
    assert any("/8 [" in bar and "<" in bar for bar in bars), bars  # 8 batches; [elapsed<left]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "llava-tinny", "--reduction", "0.6"], "did you mean llava-tiny"),
        (["--model", "llava-tiny", "--reduction", "1.5"], "between 0 and 1"),
        (["--model", "llava-tiny", "--reduction", "0.5,0"], "between 0 and 1"),
        (["--model", "llava-tiny", "--reduction", "half"], "--reduction half is not between 0 and 1"),
        (["--model", "llava-tiny", "--reduction", "0.3,,0.5"], "--reduction 0.3,,0.5 has an empty entry"),
        (["--model", "llava-tiny", "--reduction", "0.6", "--samples", "0"], "--samples 0 is not a whole number of at least 1"),
        (["--model", "llava-tiny", "--reduction", "0.6", "--samples", "100000"], "100000 were asked for"),
        (
            ["--model", "llava-tiny", "--reduction", "0.6", "--batch-size", "-1"],
            "--batch-size -1 is not a whole number",
        ),
        (["--model", "llava-tiny", "--reduction", "0.6", "--mode", "onepass"], "--mode onepass is not sequential or one-pass"),
        (["--model", "llava-tiny", "--reduction", "0.6", "--data", "nowhere"], "nowhere"),
        (["--model", "llava-1.5-7b", "--reduction", "0.6"], "llava-hf/llava-1.5-7b-hf"),
        (
            ["--model", "llava-tiny", "--reduction", "0.6", "-o", "no/such/recipe.json"],
            "cannot write no/such/recipe.json: its folder does not exist",
        ),
        (["--model", "llava-tiny", "--reduction", "0.3,0.6", "-o", "a-file"], "a-file is a file"),
        (["--model", "llava-tiny", "--reduction", "0.6", "--samples", "0", "-o", "new/"], "--samples"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a-file").write_text("mine")
    output = [] if "-o" in arguments else ["-o", "recipe.json"]
    assert main(["fit", *arguments, *output]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert says in err
    assert list(here.iterdir()) == [here / "a-file"]


def test_bad_input_as_a_process(tmp_path: Path) -> None:
    done = fit(*TINY, "--reduction", "0.6", "-o", "no/such/recipe.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: cannot write no/such/recipe.json: its folder does not exist\n"
