"""The page of a published table as Markdown."""

from reports.paper.view import Compared, View
from reports.writing.markdown import escape, table_of

LEGEND = (
    "Printed → here ± half-width of the 95 % interval (difference; ✓ the interval covers what is printed, ✗ it does not), in "
    "points. A number in brackets alone: why nothing was measured, below."
)
_SIGNS = {True: " ✓", False: " ✗", None: ""}


def to_markdown(view: View) -> str:
    """One table a setting, then what each setting was taken for, why figures are missing, and what differs."""
    parts = [f"# {escape(view.title)}", *map(escape, view.head), escape(view.sums), LEGEND]
    for section in view.sections:
        lines = [[escape(method), *(escape(_text(place)) for place in places)] for method, places in section.rows]
        parts += [f"## {escape(section.heading)}", table_of(["method", *view.titles], lines)]
    parts += _listed("What each setting was taken for", view.budgets)
    if view.reasons:
        parts += ["## Not measured", "\n".join(f"{place}. {escape(text)}" for place, text in enumerate(view.reasons, 1))]
    parts += _listed("How the protocols differ", view.differences) + _listed("Notes on the runs", view.notes)
    parts += ["## Again", f"```\n{view.command}\n```"]
    return "\n\n".join(parts) + "\n"


def _listed(heading: str, lines: list[str]) -> list[str]:
    return [f"## {heading}", "\n".join(f"- {escape(line)}" for line in lines)] if lines else []


def _text(place: Compared | None) -> str:
    if place is None:
        return "–"
    if place.mark:
        return f"{place.published} ({place.mark})"
    return f"{place.published} → {place.ours} ({place.difference}{_SIGNS[place.covered]})"
