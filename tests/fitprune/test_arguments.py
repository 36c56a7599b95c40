"""Types of arguments, and how a command refuses what it cannot read."""

import argparse
import io
import os
import sys

import pytest

from fitprune.arguments import Parser, exit_status, image_size, known_names, listed, names, one_of, share, shares, whole
from fitprune.errors import FitPruneError


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(), "1", 1),
        (whole(0), "0", 0),
        (share, "0.25", 0.25),
        (shares, "0.5, 0.3,0.5", (0.5, 0.3)),
        (names, "b,a , b", ("b", "a")),
        (listed(whole()), "4,8", (4, 8)),
        (one_of("kept", "repacked"), "kept", "kept"),
        (image_size, "300x200", (300, 200)),
    ],
)
def test_what_is_typed_is_read(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (whole(), "0", "0 is not a whole number of at least 1"),
        (whole(0), "-1", "-1 is not a whole number of at least 0"),
        (whole(), "1.5", "1.5 is not a whole number of at least 1"),
        (whole(), "9" * 5000, "9 is not a whole number"),
        (share, "1", "1 is not between 0 and 1"),
        (share, "nan", "nan is not between 0 and 1"),
        (share, "half", "half is not between 0 and 1"),
        (names, "a,,b", "a,,b has an empty entry"),
        (one_of("a", "b", "c"), "d", "d is not a, b or c"),
        (image_size, "0x5", "0x5 is not WIDTHxHEIGHT in pixels, each of 1 to 99999, such as 1024x768"),
    ],
)
def test_what_is_no_value_is_said(kind, text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        kind(text)


def test_names_are_those_that_are_known_and_all_is_every_one():
    assert known_names("pruner", ["b", "all"], ["a", "b"]) == ("b", "a")
    with pytest.raises(FitPruneError, match="unknown pruner 'fastw'; did you mean fastv"):
        known_names("pruner", ["fastw"], ["fastv", "random"])


def parser():
    made = Parser(prog="python -m some")
    commands = made.add_subparsers(dest="command", required=True)
    one = commands.add_parser("one")
    one.add_argument("--limit", type=whole())
    one.add_argument("-o", "--output", required=True)
    return made


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one", "-o", "x", "--limit", "0"], "--limit 0 is not a whole number of at least 1"),
        (["one", "-o"], "-o/--output expected one argument"),
        (["one"], "the following arguments are required: -o/--output; python -m some one --help says what can be given"),
        (["one", "-o", "x", "--size", "3"], "unrecognized arguments: --size 3; python -m some --help says what can be given"),
        (["two"], "command: invalid choice: 'two' (choose from "),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line_and_status_2(words, said, capsys):
    assert exit_status(lambda: parser().parse_args(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1


def test_the_status_is_the_commands_own(capsys):
    assert exit_status(lambda: None) == 0
    assert exit_status(lambda: 130) == 130
    assert capsys.readouterr() == ("", "")


def test_an_error_of_several_lines_is_printed_in_one(capsys):
    def fail():
        raise OSError("disk\n  full")

    assert exit_status(fail) == 2
    assert capsys.readouterr().err == "error: disk full\n"


@pytest.mark.parametrize("length", [1, 100_000])
def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(length, monkeypatch, capsys):
    """As under `| head -1`: while it prints, or when what is left is handed on at the end."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert exit_status(lambda: print("x" * length)) == 141
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_another_broken_pipe_is_an_error(capsys):
    def fail():
        raise BrokenPipeError(32, "Broken pipe", "a-fifo")

    assert exit_status(fail) == 2
    assert "a-fifo" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_of_another_encoding_shows_what_it_can(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert exit_status(lambda: print("saved ▲ 0.5 – é")) == 0
    sys.stdout.flush()
    shown = written.getvalue().decode(encoding)
    assert shown == {"ascii": "saved ? 0.5 ? ?\n", "cp1252": "saved ? 0.5 – é\n", "utf-8": "saved ▲ 0.5 – é\n"}[encoding]
