"""The leaderboard as CSV, for further computation, and as LaTeX, for a paper."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

from baselines.served import servable_in
from harness.results.table import Figure, Row
from harness.results.texts import AVERAGE
from reports.table.difficulty import Difficulty
from reports.table.leaderboard import NAME, Board, Leaderboard, Text
from reports.table.points import FLOPS, figure_at, optimal_at
from reports.table.rivals import RIVALS, Edge
from reports.table.texts import refusal

_COLUMNS = (
    *("model", "revision", "data", "limit", "method", "reduction_asked", "recipe", "servable_in", "positions_asked"),
    *("suite", "score", "score_half_width"),
    *("drop", "drop_half_width", "n", "verdict", "gflops", "of_dense", "reduction", "prefill_of_dense", "pareto_optimal"),
    *(f"vs_{rival}{end}" for rival in RIVALS for end in ("", "_low", "_high")),
    *("device", "seed", "date", "command", "cannot", "failed"),
)
_DIFFICULTY = ("easier", "answered_by_easier", "rest_n", "rest_drop", "rest_drop_low", "rest_drop_high")
# What makes a spreadsheet read a text as a formula, or look behind it for one (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\n")
_SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    "◆": r"$\blacklozenge$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "≈": r"$\approx$",
    "ʳ": r"\textsuperscript{r}",
    "ᵈ": r"\textsuperscript{d}",
    "✗": r"$\times$",
}


def to_csv(board: Leaderboard) -> str:
    """One line a row and suite, `average` among the suites; numbers in full, what is not known is empty."""
    buffer = io.StringIO()
    more = _DIFFICULTY if any(part.difficulty for part in board.boards) else ()
    writer = csv.DictWriter(buffer, (*_COLUMNS, *more), restval="", lineterminator="\n")
    writer.writeheader()
    for part in board.boards:
        writer.writerows(_records(part))
    return buffer.getvalue()


def _records(board: Board) -> Iterator[dict[str, Any]]:
    table = board.table
    for at in [AVERAGE, *table.suites]:
        optimal = optimal_at(table, at, FLOPS)
        for place, row in enumerate(table.rows):
            edges = {rival: _edge(board, place, rival, at) for rival in RIVALS}
            head = {"model": table.model, "revision": table.revision, "data": table.data, "limit": table.limit, "suite": at}
            record = head | _record(row, board, at, edges) | _rest(board.difficulty, place, at)
            yield {name: _plain(value) for name, value in record.items()} | {"pareto_optimal": str(place in optimal).lower()}


def _record(row: Row, board: Board, at: str, edges: dict[str, Edge | None]) -> dict[str, Any]:
    figure, result = figure_at(row, board.table, at), row.results.get(at)
    known = figure or Figure(math.nan)
    record = {
        "method": row.cell.pruner,
        "reduction_asked": row.cell.reduction,
        "recipe": row.cell.recipe,
        "servable_in": servable_in(row.cell.pruner),
        "positions_asked": row.cell.positions,
        "score": known.score,
        "score_half_width": known.half_width,
        "drop": known.drop,
        "drop_half_width": known.drop_half_width,
        "gflops": row.flops / 1e9,
        "of_dense": row.flops_share,
        "reduction": row.reduction,
        "prefill_of_dense": row.time_share,
    }
    if at in row.refused:
        record[row.refused[at].kind] = row.refused[at].reason
    if result is not None:
        flops = FLOPS.of(row, result)
        record |= {"gflops": flops, "reduction": 0.0 if row.is_dense else result.reduction, "n": result.n}
        record |= {"device": result.device, "seed": result.seed, "date": result.date, "command": result.command}
        record["verdict"] = "" if row.is_dense else result.verdict
    for rival, edge in edges.items():
        if edge is not None:
            record |= {f"vs_{rival}": edge.points, f"vs_{rival}_low": edge.low, f"vs_{rival}_high": edge.high}
    return record


def _rest(difficulty: Difficulty | None, place: int, at: str) -> dict[str, Any]:
    """What a row loses on the questions that downsampling does not answer, where that was asked for."""
    if difficulty is None:
        return {}
    rest = difficulty.rests[place].get(at)
    drop = difficulty.average(place) if at == AVERAGE else None if rest is None else rest.drop
    record = {} if rest is None else dict(zip(_DIFFICULTY, (rest.by, rest.answered, rest.questions), strict=False))
    return record | ({} if drop is None else dict(zip(_DIFFICULTY[3:], (drop.points, drop.low, drop.high), strict=True)))


def _edge(board: Board, place: int, rival: str, at: str) -> Edge | None:
    evidence = board.evidence[place]
    return evidence.average(rival, board.table) if at == AVERAGE else evidence.edges.get(rival, {}).get(at)


def _plain(value: Any) -> Any:
    """A value as CSV holds it. A text that a spreadsheet would take for a formula is kept one by an apostrophe."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        # Python's writer quotes a line feed, and before 3.13 no lone carriage return, which would end the row.
        value = value.replace("\r\n", "\n").replace("\r", "\n")
        return "'" + value if value.startswith(_FORMULA) else value
    return value


def to_latex(board: Leaderboard) -> str:
    """A table environment each; needs the packages booktabs and amssymb."""
    head = "% Needs \\usepackage{booktabs} and \\usepackage{amssymb}.\n"
    return head + "\n".join(_tabular(part) for part in board.boards)


def _tabular(board: Board) -> str:
    lines = [_latex_line(line, row) for line, row in zip(board.lines, board.table.rows, strict=True)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(board.heading)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(board.columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape_latex, board.columns)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_line(line: Mapping[str, Text], row: Row) -> str:
    if not row.results:
        return rf"{escape_latex(line[NAME].text)} & \multicolumn{{{len(line) - 1}}}{{l}}{{{escape_latex(refusal(row))}}} \\"
    cells = [rf"\textbf{{{escape_latex(text.text)}}}" if text.best else escape_latex(text.text) for text in line.values()]
    return " & ".join(cells) + r" \\"


def escape_latex(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(char, char) for char in " ".join(text.split()))
