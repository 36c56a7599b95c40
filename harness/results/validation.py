"""Records on disk, read by pydantic: the types that they share, and what is wrong with one in a line."""

import math
import reprlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, StrictFloat, ValidationError

from fitprune.errors import FitPruneError

Read = TypeVar("Read")


# A number that may not exist: strict JSON has `null` for it, Python NaN.
Number = Annotated[StrictFloat, BeforeValidator(lambda value: math.nan if value is None else value)]


def checked(read: Callable[[Any], Read], record: Any) -> Read:
    """What one of pydantic's readers makes of a parsed record. Raises FitPruneError, in one line, where it refuses."""
    try:
        return read(record)
    except ValidationError as error:
        raise FitPruneError(fault_of(error)) from None


def fault_of(error: ValidationError) -> str:
    """The fields that are missing; else the first field that is wrong, its value, and what it should be."""
    faults = error.errors(include_url=False, include_context=False)
    if missing := sorted({_place(fault["loc"]) for fault in faults if fault["type"] == "missing"}):
        return f"lacks {', '.join(missing)}"
    fault = faults[0]
    place = _place(fault["loc"])
    if fault["type"] == "value_error":
        said = fault["msg"].removeprefix("Value error, ")
        return f"{place}: {said}" if place else said
    expected = " ".join(fault["msg"].removeprefix("Input should be ").split())
    return f"{place or 'the record'} is {reprlib.repr(fault['input'])}, not {expected}"


def _place(steps: tuple[int | str, ...]) -> str:
    """`drop_ci95[1]`, `views[0].rows`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
