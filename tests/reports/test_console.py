"""The command `fitprune`: it names every command, hands the line on, and refuses what it does not know."""

import importlib

import pytest

from harness.__main__ import COMMANDS as OF_HARNESS
from reports.console import COMMANDS, main


def test_the_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)
    assert {*OF_HARNESS, "fit", "show", "report", "paper", "validity"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_that_of_its_module(name, monkeypatch):
    module, named, _ = COMMANDS[name]
    given = []
    monkeypatch.setattr(importlib.import_module(module), "main", lambda arguments: given.append(arguments) or 7)
    assert main([name, "--option", "x"]) == 7
    assert given == [[name, "--option", "x"] if named else ["--option", "x"]]


def test_an_unknown_command_has_near_names(capsys):
    assert main(["papers"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'papers'; did you mean paper?\n"
