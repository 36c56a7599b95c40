"""What the page knows: plain values, which its script turns into tables, charts and pictures.

Texts that many cells share (commands, versions, notes, questions) stand once, in `texts`, and are referred to by their place;
the names of a cell's fields stand once, in `fields`. Questions that pruning lost are kept as far as `LOST_BYTES` goes. So the
page of a large folder stays small.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.results.result import Result
from harness.results.strict_json import strict
from harness.results.table import Figure, Row
from harness.results.texts import FLOPS as GFLOPS
from harness.results.texts import SAVED, SHARE, TIME, WORST, drop_text, gflops, plus_minus
from harness.tasks.specs import suite_title
from reports.charts import charts
from reports.table.headline import failures, named, sentence
from reports.table.leaderboard import SERVABLE, Board, Leaderboard
from reports.table.points import AXES, FLOPS, LATENCY, optimal_at, places_of, spread_at
from reports.table.published import QUOTED
from reports.table.rivals import LOST_SHOWN, RIVALS, Evidence, Lost
from reports.table.seeds import seed_tables
from reports.table.texts import edge_text

LOST_BYTES = 1_500_000
TEXT_SHOWN = 300  # characters of a question or an answer


def page_data(
    board: Leaderboard, gallery: Sequence[dict[str, Any]] = (), tuned: Sequence[dict[str, Any]] = (), notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything that the page shows, as strict JSON values."""
    texts, shown = dict[str, int](), _examples_a_cell(board)
    rows = [row for number, part in enumerate(board.boards) for row in _Rows(part, number, texts, shown).all()]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    suites = list(dict.fromkeys(suite for part in board.boards for suite in part.table.suites))
    fields = next((list(cell) for row in rows for cell in row["cells"].values()), [])
    for row in rows:
        row["cells"] = {suite: list(cell.values()) for suite, cell in row["cells"].items()}
    data = {
        "rivals": list(RIVALS),
        "columns": _columns(board),
        "suites": {suite: suite_title(suite) for suite in suites},
        "methods": methods,
        "tables": [_table(part) for part in board.boards],
        "seeds": [asdict(table) for table in seed_tables(board.boards)],
        "fields": fields,
        "rows": rows,
        "texts": list(texts),
        "published": {"titles": board.published.titles, **asdict(board.published)},
        "quoted": QUOTED,
        "notes": [*board.damaged, *notes],
        "gallery": list(gallery),
        "tuned": list(tuned),
        "charts": _charts(methods),
    }
    return strict(data)


def _columns(board: Leaderboard) -> list[list[str]]:
    """[column, head] in order: suites, which tables may not share, stand before the last."""
    heads: dict[str, list[str]] = {}
    for part in board.boards:
        for name, head in part.titles.items():
            heads.setdefault(name, []).append(head)
    last = heads.pop(SERVABLE)
    return [[name, known[0] if len({*known}) == 1 else name] for name, known in (*heads.items(), (SERVABLE, last))]


def to_script(data: Any) -> str:
    """JSON that may stand inside a `<script>` element whatever its texts are."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _charts(methods: Sequence[str]) -> dict[str, Any]:
    if not charts.available():
        return {}
    drawn = {axis.name: charts.tradeoff(axis, methods).to_dict() for axis in AXES}
    return drawn | {"tokens": charts.tokens_left().to_dict(), "tuned": charts.certified().to_dict()}


def _table(board: Board) -> dict[str, Any]:
    table = board.table
    return {
        "heading": board.heading,
        "model": table.model,
        "revision": table.revision,
        "suites": table.suites,
        "places": places_of(table),
        "notes": board.notes,
        "command": board.command,
        "devices": sorted({result.device for result in table.results}),
        "timed": table.timed_on,
        "sentence": sentence(table),
        "failures": failures(table),
        "named": named(table),
        "difficulty": board.difficulty and {name: getattr(board.difficulty, name) for name in ("columns", "lines", "notes")},
    }


class _Rows:
    """The rows of one table; `texts` are those that cells refer to, each with its place."""

    def __init__(self, board: Board, number: int, texts: dict[str, int], shown: int) -> None:
        self.board, self.table, self.number, self.texts, self.shown = board, board.table, number, texts, shown
        self.places = places_of(self.table)
        self.optimal = {(axis, at): optimal_at(self.table, at, axis) for axis in AXES for at in self.places}

    def _place(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def all(self) -> list[dict[str, Any]]:
        return [self._row(place, row) for place, row in enumerate(self.table.rows)]

    def _row(self, place: int, row: Row) -> dict[str, Any]:
        evidence = self.board.evidence[place]
        return {
            "table": self.number,
            "name": row.name,
            "method": row.cell.pruner,
            "reduction": row.cell.reduction,
            "ids": row.cell.positions,
            "line": self._line(place),
            "values": self._values(place, row),
            "average": _figure(row.average(self.table.averaged)),
            "cells": {suite: self._cell(row, evidence, suite) for suite in self.table.suites if suite in row.results},
            "refused": {suite: self._place(no.text) for suite, no in row.refused.items() if suite not in row.results},
            "tokens": _tokens(row),
            "optimal": {axis.name: [at for at in self.places if place in self.optimal[axis, at]] for axis in AXES},
        }

    def _line(self, place: int) -> dict[str, list[Any]]:
        """Column -> [text, 1 where it is the best], of the columns that say something."""
        line = self.board.lines[place]
        return {name: [text.text, 1] if text.best else [text.text] for name, text in line.items() if text.text != "–"}

    def _values(self, place: int, row: Row) -> dict[str, float | None]:
        """What columns are sorted by, where that is not their text or a suite's score."""
        worst, evidence = row.worst(self.table.averaged), self.board.evidence[place]
        edges = {f"vs {rival}": evidence.average(rival, self.table) for rival in RIVALS}
        values = {
            WORST: None if worst is None else worst[1].drop,
            **{SAVED: row.reduction, TIME: row.time_share, GFLOPS: row.flops / 1e9, SHARE: row.flops_share},
            **{name: None if edge is None else edge.points for name, edge in edges.items()},
        }
        return {name: _round(value, 6) for name, value in values.items()}

    def _cell(self, row: Row, evidence: Evidence, suite: str) -> dict[str, Any]:
        result, lost = row.results[suite], evidence.lost.get(suite, Lost(0, []))
        edges = [edge_text(evidence.edges.get(rival, {}).get(suite)) for rival in RIVALS]
        figure = row.figure(suite) or Figure(math.nan)
        return {
            "figure": _figure(row.figure(suite)),
            "score": plus_minus(figure.score, figure.half_width, 0, 100),
            "drop": drop_text(figure),
            "verdict": "" if row.is_dense else result.verdict,
            "vs": edges,
            "n": result.n,
            "flops": _round(FLOPS.of(row, result), 6),
            "gflops": gflops(FLOPS.of(row, result) * 1e9, self.table),
            "latency": [_round(value, 4) for value in (LATENCY.of(row, result), *spread_at(row, self.table, suite))],
            "command": self._place(result.command),
            "made": self._place(_made(result)),
            "params": self._place(_json({name: value for name, value in result.params.items() if name != "provenance"})),
            "origin": self._place(_json(result.params["provenance"]) if "provenance" in result.params else ""),
            "note": self._place(result.note),
            "date": result.date[:19],
            "lost": lost.count,
            "examples": [[self._place(text) for text in _example(answer)] for answer in lost.answers[: self.shown]],
        }


def _json(value: Any) -> str:
    return json.dumps(strict(value), ensure_ascii=False)


def _made(result: Result) -> str:
    """Where and with what a figure was made."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return f"device {result.device}; seed {result.seed}; weights {result.revision}; data {result.data_digest[:16]}; {versions}"


def _figure(figure: Figure | None) -> list[float | None] | None:
    """[score, half-width, drop, half-width]."""
    if figure is None:
        return None
    return [
        *(_round(figure.score, 8), _round(figure.half_width, 5)),
        *(_round(figure.drop, 8), _round(figure.drop_half_width, 5)),
    ]


def _tokens(row: Row) -> list[float]:
    """Visual tokens left after each layer, mean over the suites that say so and have equally many layers; none for a
    dense row that stands on a pruned cell's record.
    """
    known = [result.tokens_per_layer for result in row.results.values() if result.cell.is_dense == row.is_dense]
    counts = [layers for layers in known if layers and len(layers) == len(known[0])]
    return [round(sum(layer) / len(layer), 2) for layer in zip(*counts, strict=True)]


def _examples_a_cell(board: Leaderboard) -> int:
    """How many of the lost questions of a cell the page has room for."""
    lost = [lost for part in board.boards for evidence in part.evidence for lost in evidence.lost.values()]
    for shown in range(LOST_SHOWN, 0, -1):
        size = sum(len(json.dumps(_example(answer))) for found in lost for answer in found.answers[:shown])
        if size <= LOST_BYTES:
            return shown
    return 0


def _example(answer: dict[str, Any]) -> list[str]:
    """[question, expected, dense answer, pruned answer], long ones cut."""
    return [_cut(str(answer.get(name, ""))) for name in ("question", "target", "dense_answer", "answer")]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "…"


def _round(value: float | None, digits: int) -> float | None:
    """To so many significant digits; None for what is not known."""
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None
