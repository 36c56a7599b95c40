"""`measurable`: which suite measures a printed figure. Light, so that listing is quick."""

from baselines.registry import PRUNERS
from harness.published.tables import Column, PublishedRow, PublishedTable
from harness.tasks.specs import SUITES


def measurable(table: PublishedTable, row: PublishedRow, column: Column) -> tuple[str, str]:
    """The suite that measures a figure; or, where none can, the reason beside an empty name. Loads no model."""
    if table.cannot:
        return "", table.cannot
    if row.pruner not in set(PRUNERS):  # to look one up would import it
        return "", f"{row.pruner} is not among the methods here"
    if not column.suites:
        return "", f"{column.title} is no score of a suite"
    suite = next((name for name in column.suites if name in SUITES), "")
    return suite, "" if suite else f"there is no suite {column.suites[0]} here"
