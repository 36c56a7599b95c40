"""docs/refusals.md has every message that the engine and the pruners raise, and no other."""

import ast
import re
from pathlib import Path

import pytest

from fitprune import errors

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "refusals.md"
ROOMS = ["fitprune/engine", "fitprune/interface", "fitprune/models", "fitprune/pruner.py", "fitprune/composed.py"]
ROOMS += ["fitprune/registries.py", "baselines"]
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.FitPruneError)}


def template(message):
    """A message's text with `…` for each value, as the page writes it; None for one that is not written out."""
    if isinstance(message, ast.Constant):
        return message.value
    if isinstance(message, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in message.values)
    return None


def raised():
    """(place, message) of each error of ours that is made in the rooms."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")) or [ROOT / room]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                    yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", template(node.args[0])


@pytest.fixture(scope="module", name="raised")
def read():
    return list(raised())


ROWS = [
    row.group(1) for row in re.finditer(r"^\| [^|]+ \| ([^|]+?) \| [^|]*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
][1:]


def test_both_are_read(raised):
    assert len(raised) > 90
    assert len(ROWS) > 90


def test_what_is_raised_has_its_row(raised):
    for place, message in raised:
        assert message is not None, f"{place}: write the message out where it is raised"
        assert "\n" not in message, place
        assert message in ROWS, f"docs/refusals.md lacks a row for {place}:\n| … | {message} | … |"


def test_every_row_is_raised_and_stands_once(raised):
    messages = {message for _, message in raised}
    assert [row for row in ROWS if row not in messages] == []
    assert sorted(set(ROWS)) == sorted(ROWS)
