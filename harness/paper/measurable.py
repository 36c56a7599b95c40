"""`measurable`: which suite measures a printed figure. Light, so that listing is quick."""

from collections.abc import Collection

from baselines.registry import PRUNERS
from harness.published.tables import Column, PublishedRow, PublishedTable
from harness.tasks.specs import SUITES


def measurable(table: PublishedTable, row: PublishedRow, column: Column, asked: Collection[str] = ()) -> tuple[str, str]:
    """The suite that measures a figure: of those that can, one that is asked for, else the one that scores most as papers do;
    or, where none can, the reason beside an empty name. Loads no model.
    """
    if table.cannot:
        return "", table.cannot
    if row.pruner not in set(PRUNERS):  # to look one up would import it
        return "", f"{row.pruner} is not among the methods here"
    if not column.suites:
        return "", f"{column.title} is no score of a suite"
    known = [name for name in column.suites if name in SUITES]
    if not known:
        return "", f"there is no suite {column.suites[0]} here"
    return next((name for name in known if name in asked), known[0]), ""
