"""The one Markdown table, and the page that it stands in."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fitprune.files import write_atomically
from tests.benchmarks.gpu.record import Record, sizes_of
from tests.benchmarks.gpu.section import Row
from tests.benchmarks.gpu.sections import SECTIONS
from tests.benchmarks.gpu.setting import told

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
NOT_YET = "not yet measured"


def tables(record: Record) -> str:
    """A table for each setting; where there is no figure, the one that is to be filled."""
    found = [f"**{told(setting)}**\n\n{_table(record, setting)}" for setting in record.settings()]
    return "\n\n".join(found) or f"**No card yet.**\n\n{_table(record, {'toy': False})}"


def _table(record: Record, setting: Mapping[str, Any]) -> str:
    known, body, notes = record.of(setting), [], list[str]()
    for section in SECTIONS:
        for row in section.rows(sizes_of(setting)):
            entry = known.get((section.name, row.name), {})
            # At toy sizes nothing is wanted.
            body.append([section.title, row.name, *_cells(replace(row, limit=None) if setting["toy"] else row, entry)])
            notes += [f"- {row.name}: {note}" for note in entry.get("notes", ())]
    table = tabulate(body, ["figure", "of", "measured", "wanted", "beside it"], tablefmt="pipe", disable_numparse=True)
    # Columns that are filled up to their widest cell make lines of a thousand signs.
    table = re.sub(r" +\|", " |", re.sub(r"-{3,}", "---", table))
    return "\n".join([table, *(["", *dict.fromkeys(notes)] if notes else [])])


def _cells(row: Row, entry: Mapping[str, Any]) -> list[str]:
    """What was measured, what is wanted, and what stands beside it."""
    if "measured" not in entry:
        why = next((f"{kind}: {entry[kind]}" for kind in ("cannot", "failed") if kind in entry), "")
        return [why.partition(":")[0] or NOT_YET, row.wanted, why.partition(": ")[2]]
    figure = entry["measured"]
    missed = "" if row.met(figure) else ", missed"
    return [row.unit.format(figure), row.wanted + missed, entry["beside"]]


def write(path: Path, record: Record) -> None:
    """The tables, into their place in a page that has one, else as a page of their own."""
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    write_atomically(path, [f"{before}{BEGIN}\n\n{tables(record)}\n\n{END}", rest.partition(END)[2]])


def figures(page: str) -> str:
    """The tables in a page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()
