"""Strict JSON: a number that does not exist is `null`, never `NaN`."""

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any


def strict(value: Any) -> Any:
    """`value` with NaN and infinities as None, at any depth, so that it can be strict JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    return value


def dumps(value: Any) -> str:
    """One line of strict JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:  # NaN and the like are rare, and a copy of a large value takes as much room again
        return json.dumps(strict(value), ensure_ascii=False, allow_nan=False)


def _refuse(literal: str) -> float:
    raise ValueError(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made once: a results folder holds a million lines


def loads_lines(text: str) -> Iterator[Any]:
    """The values of strict JSON texts, one a line; empty lines are passed over. Raises ValueError for anything else.

    A thousand lines are read at a time: the objects of one reading share the strings of their keys.
    """
    left = filter(None, _lines(text))
    while part := list(itertools.islice(left, 1000)):
        yield from loads(f"[{','.join(part)}]")


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def loads(text: str) -> Any:
    """The value of a strict JSON text. Raises ValueError for anything else."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
