"""What the labels of a suite's data must be: made right where that is certain, else refused with column, row and value.

Each function takes a table of questions and returns it, the same or mended. Rows are counted from 0, as pandas and datasets
count them. Whole columns are looked at; a single row is for what is said of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
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
        name, times = most_common(table[column])
        if times > 1:
            raise FitPruneError(f"column {column}: {name!r} stands {times} times; are these several generations of the data?")
        return table

    return check


def most_common(values: pa.Array | pa.ChunkedArray) -> tuple[Any, int]:
    """The value that stands most often, the first of several, and how often."""
    counted = pc.value_counts(values)
    place = int(np.argmax(counted.field("counts").to_numpy()))
    return counted.field("values")[place].as_py(), counted.field("counts")[place].as_py()


def yes_no(table: pa.Table) -> pa.Table:
    """Answers are yes or no. Full stops and the like, which lmms-eval would not take away, are; booleans count."""
    filled("answer")(table)
    given = table["answer"].combine_chunks().dictionary_encode()
    values = given.dictionary.to_pylist()
    meant = [_yes_or_no(value) for value in values]
    row = _first(np.isin(given.indices.to_numpy(), [place for place, value in enumerate(meant) if value is None]))
    if row is not None:
        raise refused("answer", row, f"must be yes or no, not {given[row].as_py()!r}")
    return table if meant == values else _replaced(table, "answer", pa.array(meant, pa.string()).take(given.indices))


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
    names = ["category", "question_id"]
    counts = table.select(names).group_by(names, use_threads=False).aggregate([([], "count_all")])
    row = _first(counts["count_all"].to_numpy() != 2)
    if row is not None:
        key = tuple(counts[name][row].as_py() for name in names)
        times = counts["count_all"][row].as_py()
        raise FitPruneError(f"each category and question_id must name a pair of questions, but {key} has {times}")
    return yes_no(table)


def references(table: pa.Table) -> pa.Table:
    """Answers are lists of strings, long enough for the leave-one-out score."""
    lists, lengths, rows = _lists(table)
    texts = lists.flatten()
    bad = lengths < FEWEST_REFERENCES
    bad[rows[texts.is_null() if pa.types.is_string(texts.type) else slice(None)]] = True
    row = _first(bad)
    if row is not None:
        values = lists[row].as_py()
        for value in values:
            if not isinstance(value, str):
                raise refused("answers", row, f"a reference answer must be a string, not {value!r}")
        raise _too_few(row, values)
    return table


def told_apart_references(table: pa.Table) -> pa.Table:
    """Answers are lists of {answer, answer_id}: lmms-eval tells annotators apart by all that they say. Strings are numbered."""
    lists, lengths, rows = _lists(table)
    given = lists.flatten()
    structs = pa.types.is_struct(given.type)
    absent = {"answer", "answer_id"} - {field.name for field in given.type} if structs else set()
    if absent:
        raise FitPruneError(f"column answers: the answers lack {', '.join(sorted(absent))}")
    answers = pc.struct_field(given, "answer") if structs else given
    bad = np.zeros(len(lists), bool)
    bad[rows[answers.is_null() if pa.types.is_string(answers.type) else slice(None)]] = True
    if structs:
        # Of the ids of one row none may stand twice: sorted by row and id, no two neighbours are the same.
        ids = pc.struct_field(given, "answer_id").dictionary_encode("encode")
        keys = np.sort(rows * (len(ids.dictionary) + 1) + ids.indices.to_numpy())
        bad[keys[1:][keys[1:] == keys[:-1]] // (len(ids.dictionary) + 1)] = True
    row = _first(bad | (lengths < FEWEST_REFERENCES))
    if row is not None:
        values = lists[row].as_py()
        for value in values:
            _answer(row, value)
        if structs and len({value["answer_id"] for value in values}) < len(values):
            raise refused("answers", row, "the answer_id of the answers must differ; lmms-eval would score every answer 0")
        raise _too_few(row, values)
    if structs:
        return table
    numbers = np.arange(len(given)) - (np.cumsum(lengths) - lengths)[rows] + 1
    numbered = pa.StructArray.from_arrays([given, pa.array(numbers)], ["answer", "answer_id"])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return _replaced(table, "answers", pa.ListArray.from_arrays(offsets, numbered))


def choices(table: pa.Table) -> pa.Table:
    """The answer is the index of one of the choices. A hint that is null is none."""
    filled("choices", "answer")(table)
    options, answers = table["choices"].combine_chunks(), table["answer"].combine_chunks()
    bad = np.ones(len(table), bool)
    if pa.types.is_list(options.type) and pa.types.is_integer(answers.type):
        places, lengths = answers.to_numpy(), pc.list_value_length(options).to_numpy()
        bad = (places < 0) | (places >= lengths)
        bad[np.repeat(np.arange(len(table)), lengths)[options.flatten().is_null()]] = True
    row = _first(bad)
    if row is not None:
        given, answer = options[row].as_py(), answers[row].as_py()
        if not isinstance(given, list) or None in given:
            raise refused("choices", row, f"must be a list of strings, not {given!r}")
        raise refused("answer", row, f"{answer!r} is not the index of one of {len(given)} choices")
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


def _lists(table: pa.Table) -> tuple[pa.ListArray, np.ndarray, np.ndarray]:
    """The column `answers`, each row of which is a list with something in it; how long each is; and each element's row."""
    kind = table.schema.field("answers").type
    if not pa.types.is_list(kind):
        raise refused(
            "answers", 0, f"must be a list of reference answers, not {kind!s}: {str(table['answers'][0].as_py())[:40]!r}"
        )
    filled("answers")(table)
    lists = table["answers"].combine_chunks()
    lengths = pc.list_value_length(lists).to_numpy()
    row = _first(lengths == 0)
    if row is not None:
        raise refused("answers", row, "the question has no answers")
    return lists, lengths.astype(np.int64), np.repeat(np.arange(len(lists)), lengths)


def _first(marked: np.ndarray) -> int | None:
    """The first row that is marked."""
    return int(np.argmax(marked)) if marked.any() else None


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
