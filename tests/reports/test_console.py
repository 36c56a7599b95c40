"""The program `fitprune`: one parser, a command's module imported when it is asked for, refusals, completion in a shell."""

import importlib
import subprocess
import sys

import pytest

from fitprune.__main__ import main as of_the_method
from harness.__main__ import main as of_the_harness
from reports.console import COMMANDS, main

HEAVY = ("torch", "transformers", "numpy", "pandas", "pyarrow", "scipy", "datasets", "pytest")


def test_the_help_names_every_command(capsys):
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert all(f"\n    {name}" in said for name in COMMANDS)
        assert said.startswith("usage: fitprune ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_its_module_s(name, monkeypatch, capsys):
    """It reads its own arguments, is told what was typed, and gives the status."""
    module = importlib.import_module(COMMANDS[name].module)
    monkeypatch.setattr(module, "add_arguments", lambda parser: parser.add_argument("--option"))
    given = []
    monkeypatch.setattr(module, "run", lambda options: given.append((options.option, options.typed)) or 7)
    assert main([name, "--option", "a b"]) == 7
    assert given == [("a b", f"fitprune {name} --option 'a b'")]
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"usage: fitprune {name} " in capsys.readouterr().out


def test_python_m_says_what_was_typed(capsys):
    for program, name, command in (("fitprune", "show", of_the_method), ("harness", "models", of_the_harness)):
        with pytest.raises(SystemExit):
            command([name, "--help"])
        assert f"usage: python -m {program} {name} " in capsys.readouterr().out


def test_an_unknown_command_has_near_names(capsys):
    assert main(["papers"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'papers'; did you mean paper?\n"


def test_an_interruption_is_one_line(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("harness.commands.models"), "run", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_what_a_command_line_needs_is_imported_and_no_more():
    """The help nothing heavy; the help of a command, and what the command line alone is wrong about, neither torch nor
    transformers nor pytest.
    """
    wrong = [
        [],
        *([name, "--help"] for name in COMMANDS),
        ["models", "--image", "large"],
        ["flops", "--model", "llava-1.5-7b", "--pruner", "fastw", "--reduction", "0.5"],
        ["flops", "--model", "llava-9"],
        ["latency", "--model", "llava-9"],
        ["latency", "--model", "llava-tiny", "--pruner", "fastw"],
        ["latency", "--model", "llava-tiny", "--device", "cuda:0", "--repeats", "0"],
        ["gallery", "--suite", "gqaa"],
        ["gallery", "--pruner", "fastw"],
        ["fit", "--model", "llava-9", "--reduction", "0.5", "-o", "x.json"],
        ["fit", "--model", "llava-tiny", "--reduction", "0.5", "-o", "x.json", "--mode", "onepass"],
        ["paper", "restore-9"],
        ["paper", "restore-1", "--pruner", "fastw"],
        ["report", "nowhere"],
        ["report", "nowhere", "--csv", "no/such/a.csv"],
        ["validity", "nowhere"],
        ["download", "llava-9"],
        ["scenes", "--canvas", "9x9"],
    ]
    code = f"""
import sys
from reports.console import main
print(sorted(set({HEAVY}) & set(sys.modules)))
for words in {wrong}:
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    print(words, status, sorted({{"torch", "transformers", "pytest"}} & set(sys.modules)), file=sys.stderr)
    assert status == (2 if words and words[-1] != "--help" else 0), words
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "[]"
    loaded = [line for line in done.stderr.splitlines() if line.startswith("[") and not line.endswith("[]")]
    assert loaded == []


def test_bash_completes_commands_options_and_names(capsys, tmp_path):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    asked = [["pa"], ["report", "--ht"]]
    asked += [["latency", "--model", "llava-t"], ["flops", "--pruner", "fastv"], ["paper", "restore-"]]
    code = f"source {tmp_path / 'script'}\n"
    for words in asked:
        code += f"COMP_WORDS=(fitprune {' '.join(words)}); COMP_CWORD={len(words)}; COMPREPLY=()\n"
        code += f"_shtab_fitprune fitprune {words[-1]}; echo ${{COMPREPLY[@]}}\n"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["paper", "--html", "llava-tiny", "fastv", "restore-1 restore-2"]


def test_completion_of_another_shell_and_without_shtab(monkeypatch, capsys):
    assert main(["completion", "fish"]) == 2
    assert capsys.readouterr().err == "error: SHELL: fish is not bash, zsh or tcsh\n"
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert capsys.readouterr().err == "error: completion needs shtab: python -m pip install shtab\n"
