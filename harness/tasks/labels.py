"""What the labels of a suite's data must be: made right where that is certain, else refused with column, row and value.

Each function takes a table of questions and returns it, the same or mended. Rows are counted from 0, as pandas and datasets
count them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fitprune.errors import FitPruneError

Labels = Callable[[pa.Table], pa.Table]

# Fewer references cannot give a right answer its full score: each one is compared with the others, of which three must agree.
FEWEST_REFERENCES = 4


def refused(column: str, row: int, what: str) -> FitPruneError:
    """The error for a value, in one line."""
    return FitPruneError(f"column {column}, row {row}: {what}")


def texts(*columns: str) -> Labels:
    """These columns hold a string in every row."""

    def check(table: pa.Table) -> pa.Table:
        for name in columns:
            kind = table.schema.field(name).type
            if not pa.types.is_string(kind):
                raise FitPruneError(f"column {name} must hold strings, not {kind}")
            filled(name)(table)
        return table

    return check


def filled(*columns: str) -> Labels:
    """These columns have a value in every row."""

    def check(table: pa.Table) -> pa.Table:
        for name in columns:
            if table[name].null_count:
                raise refused(name, pc.index(table[name].is_null(), True).as_py(), "is null")
        return table

    return check


def distinct(column: str) -> Labels:
    """No value of the column stands twice."""

    def check(table: pa.Table) -> pa.Table:
        counted = Counter(table[column].to_pylist())
        if len(counted) < len(table):
            name, times = counted.most_common(1)[0]
            raise FitPruneError(f"column {column}: {name!r} stands {times} times; are these several generations of the data?")
        return table

    return check


def yes_no(table: pa.Table) -> pa.Table:
    """Answers are yes or no. Full stops and the like, which lmms-eval would not take away, are; booleans count."""
    filled("answer")(table)
    given = table["answer"].to_pylist()
    meant = {value: _yes_or_no(value) for value in dict.fromkeys(given)}
    for row, value in enumerate(given):
        if meant[value] is None:
            raise refused("answer", row, f"must be yes or no, not {value!r}")
    read = [meant[value] for value in given]
    return table if read == given else _replaced(table, "answer", pa.array(read))


def _yes_or_no(value: Any) -> str | None:
    """The answer as lmms-eval reads it; None for anything else."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if text.lower().strip() in ("yes", "no"):
        return text
    bare = text.lower().strip(" \t\n.")
    return bare if bare in ("yes", "no") else None


def pairs(table: pa.Table) -> pa.Table:
    """Each category and question_id names two questions, to be answered yes or no."""
    counts = Counter(zip(table["category"].to_pylist(), table["question_id"].to_pylist(), strict=True))
    odd = [key for key, count in counts.items() if count != 2]
    if odd:
        raise FitPruneError(f"each category and question_id must name a pair of questions, but {odd[0]} has {counts[odd[0]]}")
    return yes_no(table)


def references(table: pa.Table) -> pa.Table:
    """Answers are lists of strings, long enough for the leave-one-out score."""
    for row, values in enumerate(_lists(table)):
        for value in values:
            if not isinstance(value, str):
                raise refused("answers", row, f"a reference answer must be a string, not {value!r}")
        if len(values) < FEWEST_REFERENCES:
            raise _too_few(row, values)
    return table


def told_apart_references(table: pa.Table) -> pa.Table:
    """Answers are lists of {answer, answer_id}: lmms-eval tells annotators apart by all that they say. Strings are numbered."""
    lists = _lists(table)
    if any(isinstance(value, str) for values in lists for value in values):
        numbered = [
            [{"answer": _answer(row, value), "answer_id": number} for number, value in enumerate(values, 1)]
            for row, values in enumerate(lists)
        ]
        kind = pa.list_(pa.struct([("answer", pa.string()), ("answer_id", pa.int64())]))
        return told_apart_references(_replaced(table, "answers", pa.array(numbered, kind)))
    absent = {"answer", "answer_id"} - {field.name for field in table.schema.field("answers").type.value_type}
    if absent:
        raise FitPruneError(f"column answers: the answers lack {', '.join(sorted(absent))}")
    for row, values in enumerate(lists):
        for value in values:
            _answer(row, value)
        if len({value["answer_id"] for value in values}) < len(values):
            raise refused("answers", row, "the answer_id of the answers must differ; lmms-eval would score every answer 0")
        if len(values) < FEWEST_REFERENCES:
            raise _too_few(row, values)
    return table


def choices(table: pa.Table) -> pa.Table:
    """The answer is the index of one of the choices. A hint that is null is none."""
    filled("choices", "answer")(table)
    for row, (options, answer) in enumerate(zip(table["choices"].to_pylist(), table["answer"].to_pylist(), strict=True)):
        if not isinstance(options, list) or None in options:
            raise refused("choices", row, f"must be a list of strings, not {options!r}")
        if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
            raise refused("answer", row, f"{answer!r} is not the index of one of {len(options)} choices")
    return _replaced(table, "hint", pc.fill_null(table["hint"].cast(pa.string()), "")) if table["hint"].null_count else table


def image_ids(table: pa.Table) -> pa.Table:
    """Ids of images are strings; numbers are taken for what they are written as."""
    return _replaced(table, "imageId", table["imageId"].cast(pa.string()))


def in_turn(*checks: Labels) -> Labels:
    """All of them, each on what the one before it returned."""

    def check(table: pa.Table) -> pa.Table:
        for one in checks:
            table = one(table)
        return table

    return check


def _lists(table: pa.Table) -> list[list[Any]]:
    """The column `answers`, every row of which is a list with something in it."""
    kind = table.schema.field("answers").type
    if not pa.types.is_list(kind):
        raise refused(
            "answers", 0, f"must be a list of reference answers, not {kind!s}: {str(table['answers'][0].as_py())[:40]!r}"
        )
    filled("answers")(table)
    lists = table["answers"].to_pylist()
    for row, values in enumerate(lists):
        if not values:
            raise refused("answers", row, "the question has no answers")
    return lists


def _answer(row: int, value: Any) -> str:
    """The text of one reference answer."""
    text = value.get("answer") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise refused("answers", row, f"a reference answer must be a string, not {text!r}")
    return text


def _too_few(row: int, values: Sequence[Any]) -> FitPruneError:
    return refused(
        "answers",
        row,
        f"{len(values)} reference answer{'s' * (len(values) != 1)}; the metric compares each with the others, and needs "
        f"{FEWEST_REFERENCES} to give a right answer its full score",
    )


def _replaced(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
