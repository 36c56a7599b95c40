"""`identity`: what decides a cell's outcome, known before it runs: the fields of its result that its key covers.

All of it is plain data, made of what is handed in: the process that knows a model's facts need not be the one that asks.
"""

import functools
from collections.abc import Callable
from typing import Any

from fitprune import Pruner
from harness.answering.arguments import answered_by
from harness.answering.evaluate import conditions
from harness.answers import MEAN
from harness.cells import Cell, CellSettings
from harness.models.facts import ModelFacts
from harness.results.result import SCHEMA

Margin = Callable[[str], float | None]
"""Points, per suite, of a run that stops asking as soon as a drop is known to be above or below."""


Conditions = Callable[[str, str], dict[str, Any]]
"""What a suite decides of an outcome, asked of a model in a precision, as `conditions` has it."""


def conditions_of(settings: CellSettings) -> Conditions:
    """Those of a run; each suite's data is read once."""
    return functools.cache(lambda suite, dtype: conditions(suite, settings, dtype))


def identity(
    cell: Cell, facts: ModelFacts, pruner: Pruner, known: dict[str, Any], settings: CellSettings, margin: Margin | None = None
) -> dict[str, Any]:
    """A cell's identity.

    Args:
        facts: of its model, where it will run.
        known: its suite's conditions.
        margin: of a run that may stop early; None where all questions are asked.
    """
    return {
        "schema": SCHEMA,
        "model": cell.model,
        "revision": facts.revision,
        **answered_by(facts, pruner),
        "pruner": cell.pruner,
        "suite": cell.suite,
        **known,
        "limit": settings.limit,
        "seed": settings.seed,
        "sequential": stopping(cell, known["statistic"], settings.seed, margin),
    }


def stopping(cell: Cell, statistic: str, seed: int, margin: Margin | None) -> dict[str, Any]:
    """What decides when a cell's run stops: margin and seed; empty where all questions are asked."""
    points = None if margin is None or cell.is_dense else margin(cell.suite)
    return {} if points is None or statistic != MEAN else {"margin": points, "seed": seed}
