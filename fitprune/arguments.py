"""What people type on a command line: types of arguments, and a parser that refuses in one line.

A type takes the text and returns the value. Its error says what the text is not, and whoever reads the option puts the
option's name before that: `--limit 0 is not a whole number of at least 1`. So argparse and pytest's options share the types.
"""

import argparse
import io
import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, NoReturn, TypeVar

from fitprune.errors import FitPruneError, unknown_name

Value = TypeVar("Value")


class Parser(argparse.ArgumentParser):
    """argparse's parser, which raises FitPruneError, of one line, where that prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        named = re.sub(r"^argument (-\S+): ", r"\1 ", message, count=1)
        hint = "" if message.startswith("argument ") else f"; {self.prog} --help says what can be given"
        raise FitPruneError(named.removeprefix("argument ") + hint)


def exit_status(command: Callable[[], int | None], prefix: str = "error") -> int:
    """Run a command: what it returns, 0 for None; 2 where it raises FitPruneError or OSError, which is shown in one line.

    Signs that the terminal's encoding does not have are shown as "?".
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return command() or 0
    except (FitPruneError, OSError) as error:
        print(f"{prefix}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def whole(least: int = 1) -> Callable[[str], int]:
    """A whole number of at least `least`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
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
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT in pixels, such as {TYPICAL_SIZE}")
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
