"""`tox run -e gpu`: end to end at toy sizes, killed and resumed; failures of a row, of a process; time; the page."""

import configparser
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from fitprune import FitPruneError
from tests.benchmarks.gpu import __main__ as command
from tests.benchmarks.gpu import answers, child, columns, setting, table
from tests.benchmarks.gpu.record import FILE, Record
from tests.benchmarks.gpu.section import Measured, Row, Section
from tests.benchmarks.gpu.sections import SECTIONS
from tests.benchmarks.gpu.sizes import FULL, TOY
from tests.support.warm import python

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
TYPED = ["-m", "tests.benchmarks.gpu", "--toy", "--device", "cpu", "--out"]
HERE = {"card": "Test Card", "driver": "1", "torch": "2", "transformers": "5", "dtype": "bfloat16", "attention": "sdpa"}
HERE |= {"toy": True, "sources": "0"}
SOME = (answers.SECTION, columns.SECTION)


@pytest.fixture(autouse=True)
def warm_children(monkeypatch):
    monkeypatch.setattr(sys, "executable", python())


def entries(folder):
    """What has been measured, as it stands in the file."""
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()] if (folder / FILE).exists() else []


def section_of(*rows, name="made up"):
    return Section(name, "a made-up figure", lambda sizes: list(rows))


def figure(value, beside="", **raw):
    return lambda bench: Measured(value, beside, raw)


def raising(error):
    def measure(bench):
        raise error

    return measure


def in_child(section, folder, seconds=1000, skip=(), found=HERE):
    return child.measure(section, found, CPU, Record(folder), seconds, list(skip))


@pytest.mark.parametrize("chosen", [SOME, pytest.param(SECTIONS, marks=pytest.mark.exhaustive)], ids=["some", "all"])
def test_killed_and_resumed_it_measures_every_figure_once(chosen, tmp_path):
    words = [*TYPED, tmp_path, "--section", ",".join(section.name for section in chosen)]
    with subprocess.Popen([python(), *words], cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        while not entries(tmp_path):
            assert run.poll() is None
            time.sleep(0.05)
        children = psutil.Process(run.pid).children()
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    psutil.wait_procs(children, timeout=60)
    before = (tmp_path / FILE).read_bytes()
    assert before.count(b"\n") == 1, "a section's process outlived the command, in the midst of its section"
    done = subprocess.run([python(), *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / FILE).read_bytes().startswith(before)
    measured = [(entry["section"], entry["row"]) for entry in entries(tmp_path)]
    assert sorted(measured) == sorted((section.name, row.name) for section in chosen for row in section.rows(TOY))
    assert all("failed" not in entry for entry in entries(tmp_path))
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("\n| ") == 1 + sum(len(section.rows(TOY)) for section in SECTIONS)
    assert (table.NOT_YET in page) == (chosen is SOME)
    assert "the CPU, which says nothing about a GPU, at toy sizes" in page
    assert "wanted" in page
    assert "missed" not in page
    again = subprocess.run(
        [python(), *TYPED, tmp_path, "--section", columns.SECTION.name], cwd=ROOT, capture_output=True, text=True
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert f"{columns.SECTION.name}: no figures to measure" in again.stdout
    assert len(entries(tmp_path)) == len(measured)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: the figures are of a GPU, and this machine has no CUDA device; --toy measures small sizes on a CPU\n"),
        (["--device", "cuda:1"], "error: device 'cuda:1' is not here: this machine has no CUDA device; take cpu\n"),
    ],
)
def test_without_a_card_one_line_says_so(words, message, tmp_path, capfd):
    assert command.main([*words, "--out", str(tmp_path)]) == 2
    assert capfd.readouterr() == ("", message)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--section", "fits"], "unknown section 'fits'; did you mean fit?"),
        (["--minutes", "0"], "--minutes 0 is not a whole number of at least 1"),
        (["--dtype", "int8"], "--dtype int8 is not bfloat16, float16 or float32"),
    ],
)
def test_input_that_cannot_be_used(words, message, tmp_path, capsys):
    assert command.main([*words, "--out", str(tmp_path / "new")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_two_runs_do_not_write_to_one_folder(tmp_path, capsys):
    with command.alone(tmp_path):
        assert command.main(["--out", str(tmp_path)]) == 2
    assert f"another run writes its figures to {tmp_path}; --out takes another folder" in capsys.readouterr().err


def test_too_little_memory_is_a_row_that_says_so(tmp_path, capsys):
    section = section_of(Row("large", 1, raising(torch.OutOfMemoryError("tried to allocate"))), Row("small", 1, figure(0.5)))
    assert in_child(section, tmp_path) == 0
    large, small = entries(tmp_path)
    assert large["cannot"].startswith("needs more memory than the card has")
    assert small["measured"] == 0.5
    assert "large: cannot: needs more memory than the card has" in capsys.readouterr().out
    assert in_child(section, tmp_path) == 0
    assert len(entries(tmp_path)) == 2


def test_a_row_that_fails_ends_its_process_and_is_tried_again_after_the_others(tmp_path, capsys):
    broken = [ValueError("two\n lines"), FitPruneError("the sums are wrong")]
    rows = [Row(str(error), 1, raising(error)) for error in broken]
    section = section_of(*rows, Row("good", 1, figure(2.0)))
    assert in_child(section, tmp_path) == child.FAILED
    assert [entry.get("failed") for entry in entries(tmp_path)] == ["ValueError: two lines"]
    assert in_child(section, tmp_path, skip=[rows[0].name]) == child.FAILED
    assert entries(tmp_path)[-1]["failed"] == "the sums are wrong"
    assert in_child(section, tmp_path) == child.FAILED
    assert [entry["row"] for entry in entries(tmp_path)[2:]] == ["good", rows[0].name]
    assert "failed: the sums are wrong" in capsys.readouterr().out


def test_no_row_is_begun_that_would_end_after_the_time(tmp_path, monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def slow(bench):
        clock.now += 30
        return Measured(1.0, "")

    section = section_of(*(Row(name, 10, slow) for name in ("first", "second", "third")))
    assert in_child(section, tmp_path, seconds=65) == child.TIME_ENDED
    # The first took three times as long as estimated; the third would, too.
    assert [entry["row"] for entry in entries(tmp_path)] == ["first", "second"]
    assert "third: not begun, it takes 30 s and 5 s are left" in capsys.readouterr().out


@pytest.mark.parametrize("part", HERE)
def test_figures_of_another_setting_are_not_reused(part, tmp_path):
    section = section_of(Row("one", 1, figure(1.0)))
    other = {**HERE, part: "another" if part != "toy" else False}
    assert [in_child(section, tmp_path, found=found) for found in (HERE, other, HERE, other)] == [0] * 4
    assert [entry["setting"] for entry in entries(tmp_path)] == [HERE, other]


def test_a_row_knows_the_figures_before_it(tmp_path):
    section = section_of(Row("one", 1, figure(4.0)), Row("two", 1, lambda bench: Measured(bench.finished["one"] / 2, "")))
    assert in_child(section, tmp_path) == 0
    assert entries(tmp_path)[1]["measured"] == 2.0


class Processes:
    """Stands in for sections' processes: each takes the next of its `deeds`, which gets the folder and gives the status."""

    def __init__(self, folder, *deeds):
        self.folder, self.deeds, self.asked = folder, list(deeds), []

    def __call__(self, command_line, seconds):
        self.asked.append(json.loads(command_line[-1]))
        return self.deeds.pop(0)(self.folder)


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """Run the command's loop over a section of three rows with such processes."""
    rows = [Row(name, 10, figure(1.0)) for name in ("a", "b", "c")]
    section = section_of(*rows)
    options = SimpleNamespace(device=None, dtype=None, attention="sdpa", toy=True, out=tmp_path, minutes=25)

    def go(*deeds, minutes=25):
        processes = Processes(tmp_path, *deeds)
        monkeypatch.setattr(command, "_run", processes)
        return command.measure(section, HERE, options, time.monotonic() + 60 * minutes), processes

    return go


def does(status, **found):
    """A process that measures the rows of `found`; a text is why one failed."""

    def deed(folder):
        for row, value in found.items():
            entry = {"failed": value} if isinstance(value, str) else {"measured": value, "beside": ""}
            Record(folder).add(HERE, "made up", row, **entry)
        return status

    return deed


def test_a_new_process_goes_on_behind_a_row_that_failed(parent, tmp_path):
    why, processes = parent(does(child.FAILED, a=1.0, b="it broke"), does(0, c=1.0))
    assert why == "b: it broke"
    assert [asked["skip"] for asked in processes.asked] == [[], ["b"]]


def test_a_process_that_crashes_costs_its_row(parent, tmp_path):
    why, _ = parent(does(-11, a=1.0), does(0, c=1.0))
    assert why == "b: its process ended with status -11"
    assert [entry["row"] for entry in entries(tmp_path)] == ["a", "b", "c"]
    # The next run tries it again.
    assert parent(does(0, b=1.0))[0] == ""


def test_two_processes_without_a_figure_end_the_section(parent):
    why, processes = parent(does(child.FAILED, a="no model"), does(child.FAILED, b="no model"))
    assert why == "a: no model; b: no model"
    assert len(processes.asked) == 2


@pytest.mark.parametrize("status", [None, child.TIME_ENDED])
def test_the_end_of_the_time_is_said_with_what_is_left(parent, status):
    assert parent(does(status, a=1.0))[0] == "2 figures are left: the 25 minutes are over"
    why, processes = parent(minutes=0)
    assert why == "2 figures are not begun: the 25 minutes are over"
    assert processes.asked == []


def test_a_process_is_ended_at_the_end_of_the_time():
    started = time.monotonic()
    assert command._run([sys.executable, "-c", "import time; time.sleep(100)"], 0.5) is None
    assert time.monotonic() - started < 50
    assert command._run([sys.executable, "-c", "raise SystemExit(3)"], 100) == child.TIME_ENDED


def test_the_exit_status_and_the_other_sections(tmp_path, monkeypatch, capsys):
    bad = section_of(Row("x", 1, figure(1.0)), name="bad")
    good = section_of(Row("y", 1, figure(1.0)), name="good")
    monkeypatch.setattr(command, "SECTIONS", (bad, good))
    monkeypatch.setattr(command, "described", lambda options: HERE)

    def run(command_line, seconds):
        name = json.loads(command_line[-1])["section"]
        found = {"failed": "cut off"} if name == "bad" else {"measured": 1.0, "beside": "", "seconds": 1}
        Record(tmp_path).add(HERE, name, {"bad": "x", "good": "y"}[name], **found)
        return child.FAILED if name == "bad" else 0

    monkeypatch.setattr(command, "_run", run)
    assert command.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "bad: x: cut off\n"
    assert [entry["section"] for entry in entries(tmp_path)] == ["bad", "good"]
    assert command.main(["--out", str(tmp_path), "--section", "good"]) == 0


def test_an_interrupt_writes_the_table_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "described", lambda options: HERE)
    monkeypatch.setattr(command, "_run", interrupted)
    assert command.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "interrupted; the same command goes on with the next figure\n"
    assert (tmp_path / "gpu.md").is_file()


def test_the_table_says_what_was_missed_what_cannot_be_and_what_disturbed(tmp_path, monkeypatch):
    rows = [
        Row("slow", 1, figure(1.25, "24 → 30 ms"), limit=1.1),
        Row("fast", 1, figure(12.0), "{:.0f}×", limit=10, least=True),
        Row("few", 1, figure(9.0, notes=["it was shared"]), "{:.0f}×", limit=10, least=True),
        Row("none", 1, figure(None, "it merges in the tower")),
        Row("broken", 1, raising(FitPruneError("the sums are wrong"))),
        Row("later", 1, figure(1.0)),
    ]
    monkeypatch.setattr(table, "SECTIONS", (section_of(*rows),))
    full = {**HERE, "toy": False}
    assert in_child(section_of(*rows), tmp_path, found=full) == child.FAILED
    lines = table.tables(Record(tmp_path)).splitlines()
    assert lines[0] == "**Test Card, driver 1; torch 2, transformers 5, bfloat16, sdpa attention, sources 0**"
    assert [line.partition("figure | ")[2].removesuffix(" |") for line in lines[4:10]] == [
        "slow | 1.25 | ≤ 1.10, missed | 24 → 30 ms",
        "fast | 12× | ≥ 10× |",
        "few | 9× | ≥ 10×, missed |",
        "none | cannot | | it merges in the tower",
        "broken | failed | | the sums are wrong",
        "later | not yet measured | |",
    ]
    assert lines[-1] == "- few: it was shared"


def test_a_later_state_of_the_sources_replaces_the_card_s_table(tmp_path):
    for sources, dtype in (("0", "bfloat16"), ("0", "float16"), ("1", "bfloat16")):
        Record(tmp_path).add({**HERE, "sources": sources, "dtype": dtype}, "fit", "x", measured=1.0, beside="")
    assert [(found["sources"], found["dtype"]) for found in Record(tmp_path).settings()] == [
        ("1", "bfloat16"),
        ("0", "float16"),
    ]


def test_the_page_holds_the_table_of_the_figures_in_docs_and_no_other():
    found = table.figures((ROOT / "docs" / "gpu.md").read_text(encoding="utf-8"))
    again = "python -m tests.benchmarks.gpu --out docs --table"
    assert found == table.tables(Record(ROOT / "docs")), f"what is measured has changed: {again}"
    if not entries(ROOT / "docs"):
        assert found.count(table.NOT_YET) == sum(len(section.rows(FULL)) for section in SECTIONS)


def test_a_table_goes_where_the_page_has_its_place(tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    assert command.main(["--out", str(tmp_path), "--table"]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n\n**No card yet.**")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text


def test_the_full_sizes_fit_the_time():
    seconds = sum(row.seconds for section in SECTIONS for row in section.rows(FULL)) + 20 * len(SECTIONS)
    assert seconds <= 25 * 60


def test_every_row_has_a_name_of_its_own():
    for sizes in (FULL, TOY):
        named = [(section.name, row.name) for section in SECTIONS for row in section.rows(sizes)]
        assert len(named) == len(set(named))


def test_the_driver_is_told_with_and_without_nvml(monkeypatch):
    nvml = SimpleNamespace(nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlSystemGetDriverVersion=lambda: "570.1")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert setting.driver() == "570.1"
    nvml.nvmlInit = raising(None)
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 12080, raising=False)
    assert setting.driver() == "for CUDA 12.8"


def test_the_environment_takes_the_machine_s_torch():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string((ROOT / "tox.ini").read_text(encoding="utf-8"))
    gpu = tox["testenv:gpu"]
    assert gpu["system_site_packages"] == "true"
    assert gpu["deps"] == ""
    assert "constraint" not in gpu["set_env"].lower()
    assert gpu["commands"] == "python -m tests.benchmarks.gpu {posargs}"
