"""What the labels of further suites must be, as `harness.tasks.labels` has it for the six."""

import ast
import math
from collections.abc import Callable, Collection

import pyarrow as pa
import pyarrow.compute as pc

from fitprune.errors import FitPruneError
from harness.tasks.labels import Labels, filled, refused


def one_of(column: str, *known: str) -> Labels:
    """The column holds one of these strings in every row."""
    return each(column, lambda value: value in known, f"must be one of {', '.join(known)}")


def answer_lists(column: str) -> Labels:
    """The column holds a list with at least one string in every row, or a string."""
    return each(column, lambda value: isinstance(value, str) or _texts(value, 1), "must be a list of strings")


def option_numbers(table: pa.Table) -> pa.Table:
    """AI2D's: `answer` is the number of one of `options`, from 0, as text."""
    filled("options", "answer")(table)
    counts, given = pc.list_value_length(table["options"]).to_pylist(), table["answer"].to_pylist()
    for row, (count, answer) in enumerate(zip(counts, given, strict=True)):
        if not str(answer).isdigit() or int(answer) >= count:
            raise refused("answer", row, f"{answer!r} is not the number of one of {count} options, from 0")
    return table


def letters(answer: str, options: Collection[str]) -> Labels:
    """The column `answer` holds the letter of one of the columns `options` that has a text; they end in their letters."""
    by_letter = {name[-1].upper(): name for name in options}

    def check(table: pa.Table) -> pa.Table:
        one_of(answer, *by_letter)(table)
        given = table[answer].to_pylist()
        for letter, name in by_letter.items():
            for row in (row for row, value in enumerate(given) if value == letter):
                if table[name][row].as_py() in (None, "", "nan"):
                    raise refused(answer, row, f"is {letter}, and column {name} has no option there")
        return table

    return check


def lists_as_text(table: pa.Table) -> pa.Table:
    """MMMU's: `options` is a Python list of strings, written out; where the question is of multiple choice, of two or more."""

    def good(value: object) -> bool:
        try:
            return isinstance(ast.literal_eval(str(value)), list)
        except (ValueError, SyntaxError):
            return False

    return each("options", good, "must be a Python list, written out")(table)


def boxes(column: str) -> Labels:
    """The column holds left, top, width and height in pixels, the last two above 0."""

    def good(value: object) -> bool:
        return isinstance(value, list) and len(value) == 4 and None not in value and min(value[2:]) > 0

    return each(column, good, "must be left, top, width and height in pixels")


def option_list(table: pa.Table) -> pa.Table:
    """Video-MME's: `options` is a list of four strings."""
    return each("options", lambda value: _texts(value, 4, 4), "must be a list of four strings")(table)


def candidates(table: pa.Table) -> pa.Table:
    """MVBench's: `answer` is one of `candidates`, two to five strings."""
    each("candidates", lambda value: _texts(value, 2, 5), "must be a list of two to five strings")(table)
    given = zip(table["candidates"].to_pylist(), table["answer"].to_pylist(), strict=True)
    for row, (options, answer) in enumerate(given):
        if answer not in options:
            raise refused("answer", row, f"{answer!r} is none of the candidates")
    return table


def _texts(value: object, least: int, most: float = math.inf) -> bool:
    """Whether a value is a list of so many strings."""
    return isinstance(value, list) and least <= len(value) <= most and all(isinstance(text, str) for text in value)


def five_answers(table: pa.Table) -> pa.Table:
    """NExT-QA's: `answer` is the number of one of five answers, from 0."""
    return each("answer", lambda value: value in range(5), "must be the number of one of five answers, from 0")(table)


def each(column: str, good: Callable[[object], bool], what: str) -> Labels:
    """Every row's value is `good`; `what` says what it must be. A value that comes again is looked at once."""

    def check(table: pa.Table) -> pa.Table:
        if column not in table.column_names:
            raise FitPruneError(f"column {column} is not there")
        known: dict[str, bool] = {}
        for row, value in enumerate(table[column].to_pylist()):
            name = repr(value)
            if not known.setdefault(name, good(value)):
                raise refused(column, row, f"{what}, not {name:.60}")
        return table

    return check
