"""Strict JSON: a number that does not exist is `null`, never `NaN`."""

import json
import math
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
    return json.dumps(strict(value), ensure_ascii=False, allow_nan=False)


def _refuse(literal: str) -> float:
    raise ValueError(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made once: a results folder holds a million lines


def loads(text: str) -> Any:
    """The value of a strict JSON text. Raises ValueError for anything else."""
    return _DECODER.decode(text)
