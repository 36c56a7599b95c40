"""What people type on a command line: types of arguments, and a parser that refuses in one line.

A type takes the text and returns the value. Its error says what the text is not, and whoever reads the option puts the
option's name before that: `--limit 0 is not a whole number of at least 1`. So argparse and pytest's options share the types.
"""

import argparse
import importlib
import io
import os
import re
import select
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TextIO, TypeVar

from fitprune.errors import FitPruneError, one_line, unknown_name

Value = TypeVar("Value")


class Parser(argparse.ArgumentParser):
    """argparse's parser, which raises FitPruneError, of one line, where that prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        named = re.sub(r"^argument (-\S+): ", r"\1 ", message, count=1)
        hint = "" if message.startswith("argument ") else f"; {self.prog} --help says what can be given"
        raise FitPruneError(named.removeprefix("argument ") + hint)


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command: what it returns, 0 for None; 2 where it raises FitPruneError or OSError, which is shown in one line; 130
    after Ctrl-C; 141, without a word, where whoever reads the output, `head` say, has seen enough.

    Signs that the terminal's encoding does not have are shown as "?".
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except (FitPruneError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout):
            return 141  # as a shell counts SIGPIPE
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(": ".join(filter(None, ["interrupted", str(stopped)])), file=sys.stderr)
        return 130


def _is_closed(stream: TextIO) -> bool:
    """Whether nobody reads a pipe any more; what is left in it is dropped then, so that no error comes at the exit."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # a notebook's, or a test's
        return False
    poll = select.poll()
    poll.register(number, 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), number)
    return closed


class Command(NamedTuple):
    """A command: the module that has its `add_arguments(parser)` and `run(options)`, and one line on what it is for."""

    module: str
    purpose: str


def commands_parser(program: str, purpose: str, commands: Mapping[str, Command], wanted: Collection[str]) -> Parser:
    """The parser of a program of several commands. Only the modules of the `wanted` ones are imported: the others have a name
    and a line in the help.
    """
    parser = Parser(prog=program, description=purpose)
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in commands.items():
        own = parsers.add_parser(name, help=command.purpose)
        if name in wanted:
            _equip(own, importlib.import_module(command.module))
    return parser


def run_commands(program: str, purpose: str, commands: Mapping[str, Command], arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; returns the exit status. Without a word the help is printed.

    Beside what the command's arguments are, `options.typed` is the command line as it was typed, quoted for a shell, and
    `options.whole()` the parser of all commands.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)

    def run() -> int | None:
        word = given[0] if given else "--help"
        if not word.startswith("-") and word not in commands:
            raise unknown_name("command", word, commands)

        def parser_of(*wanted: str) -> Parser:
            return commands_parser(program, purpose, commands, wanted)

        return _parsed(parser_of(word), given or [word], whole=lambda: parser_of(*commands))

    return exit_status(run)


def run_command(program: str, module: Any, arguments: Sequence[str] | None = None) -> int:
    """Run a program that is one command, by its module; returns the exit status."""

    def run() -> int | None:
        parser = Parser(prog=program)
        _equip(parser, module)
        return _parsed(parser, sys.argv[1:] if arguments is None else list(arguments))

    return exit_status(run)


def _equip(parser: argparse.ArgumentParser, module: Any) -> None:
    parser.description = module.__doc__
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def _parsed(parser: Parser, given: list[str], **more: Any) -> int | None:
    for before, word in zip(["", *given], given, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            raise FitPruneError(f"{word[:-1] or (before if before.startswith('-') else 'an argument')} is empty")
    options = parser.parse_args(given, argparse.Namespace(typed=shlex.join([*parser.prog.split(), *given]), **more))
    return options.run(options)


def whole(least: int = 1) -> Callable[[str], int]:
    """A whole number of at least `least`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text) or int(text) < least:
            most = f" and at most {10**12 - 1}" if text.isdigit() and int(text[:13]) >= 10**12 else ""
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}{most}")
        return int(text)

    return read


def number(text: str) -> float:
    """The number, or NaN, which lies in no range."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def share(text: str) -> float:
    """A reduction: a share of the visual tokens' FLOPs."""
    if not 0 < number(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1; it is the share of the visual tokens' FLOPs to save")
    return number(text)


def one_of(*known: str) -> Callable[[str], str]:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text} is not {', '.join(known[:-1])} or {known[-1]}")
        return text

    return read


def listed(kind: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    """Values of a type with commas between them, each once."""

    def read(text: str) -> tuple[Value, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise argparse.ArgumentTypeError(f"{text} has an empty entry")
        return tuple(dict.fromkeys(map(kind, parts)))

    return read


names = listed(str)
shares = listed(share)


class Size(NamedTuple):
    """Of an image, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


TYPICAL_SIZE = Size(1024, 768)  # an ordinary photograph


def image_size(text: str) -> Size:
    """The size written as "1024x768"."""
    match = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT in pixels, each of 1 to 99999, such as {TYPICAL_SIZE}")
    return Size(int(match[1]), int(match[2]))


def known_names(kind: str, asked: Iterable[str], known: Iterable[str], also: Collection[str] = ()) -> tuple[str, ...]:
    """The names asked for, each once, with `all` spelt out, which does not mean those that are known `also`.

    Raises FitPruneError for an unknown one, with the nearest names.
    """
    known = list(known)
    found: list[str] = []
    for name in asked:
        if name not in ("all", *known, *also):
            raise unknown_name(kind, name, [*known, "all"])
        found += known if name == "all" else [name]
    return tuple(dict.fromkeys(found))
