"""`evaluate_cell` with the settings of cells as arguments of its own, for tests that set one or two of them."""

from dataclasses import fields
from typing import Any

from harness.answering import evaluate
from harness.answers import Answers
from harness.cells import CellSettings


def evaluate_cell(loaded: Any, pruner: Any, suite: str, **given: Any) -> Answers:
    """See `harness.answering.evaluate.evaluate_cell`."""
    names = {field.name for field in fields(CellSettings)} & given.keys()
    settings = CellSettings(**{name: given.pop(name) for name in names})
    return evaluate.evaluate_cell(loaded, pruner, suite, settings, **given)
