"""A published table cell by cell beside what is measured here, or which tables there are."""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fitprune.arguments import known_names, names, whole
from fitprune.errors import FitPruneError
from fitprune.files import check_folder, write_atomically
from harness.bench.again import BATCH_SIZE
from harness.cells import DENSE, FITPRUNE, CellSettings
from harness.published.tables import PublishedTable, columns, find_table, tables
from harness.tasks.specs import SUITES

if TYPE_CHECKING:
    from harness.bench.planning import Planner
    from harness.models.family_names import ChosenModel
    from harness.paper.cells import Paper
    from reports.paper.view import View

LIST = "list"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("table", metavar="list|NAME", help="a table's name; list: which there are, and how many of their figures can run here")
    add("--model", metavar="NAME", help="registry name, family's name, hub id or folder (default: the table's own)")
    add("--suite", type=names, default=(), metavar="NAMES", help="comma list (default: all that are here)")
    add("--pruner", type=names, default=(), metavar="NAMES", help="comma list (default: all that are here)")
    add("--tokens", type=whole(), metavar="N", help="rows of N visual tokens, and the dense one (default: all)")
    add("--limit", type=whole(), metavar="N", help="questions per suite (default: all)")
    add("--data", metavar="mini|hub|DIR", help="as for pytest suites/ (default: mini for embedded models, else hub)")
    add("--results", default="results", metavar="DIR", help="where cells are kept, and found (default results)")
    add("-o", "--output", type=Path, default=Path("paper"), metavar="DIR", help="folder of the page (default paper)")
    add("--plan", action="store_true", help="print what can run and what it costs; run nothing")
    add("--batch-size", type=whole(), default=BATCH_SIZE, metavar="N", help=f"questions per batch (default {BATCH_SIZE})")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or auto (default: CUDA where there is one)")


def run(options: argparse.Namespace) -> None:
    """Print the tables, or run one. After Ctrl-C the command that goes on is named."""
    if options.table == LIST:
        _list(options.model)
        return
    try:
        _run(options, options.typed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what was answered is in {options.results}; go on with: {options.typed}") from None


def _list(model: str | None) -> None:
    """Print the tables, of one model where it is named; a family's name is that of its standard checkpoint."""
    from tabulate import tabulate

    from harness.models.families import FAMILY_NAMES
    from harness.paper.measurable import measurable

    model = FAMILY_NAMES[model].standard if model in FAMILY_NAMES else model
    shown = [table for table in tables().values() if model in (None, table.model)]
    if not shown:
        known = ", ".join(dict.fromkeys(table.model for table in tables().values()))
        raise FitPruneError(
            f"no published table is of {model}; there are tables of {known}: "
            f"name one, and --model {model} is asked for it with its tokens scaled"
        )
    lines = []
    for table in shown:
        figures = [(row, name) for row in table.rows for name in row.values]
        here = sum(not measurable(table, row, columns()[name])[1] for row, name in figures)
        lines.append([table.name, table.model, len(figures), here, table.source])
    print(tabulate(lines, ["table", "model", "figures", "can run", "source"], tablefmt="plain", disable_numparse=True))


def _run(asked: argparse.Namespace, again: str) -> None:
    """Check everything, resolve the table's cells, and plan or run them."""
    table = find_table(asked.table)
    chosen = _checked(asked, table)

    from harness.bench.bench import Bench
    from harness.bench.planning import Planner, lines_of
    from harness.paper.run import run_paper
    from harness.results.once import RunFolder
    from harness.results.store import Store
    from reports.paper.view import view_of

    store, device = Store(asked.results), asked.device
    settings = CellSettings(data=asked.data, limit=asked.limit, batch_size=asked.batch_size)
    planner = Planner(settings, store, device)
    paper = _paper(asked, table, chosen.name, planner)
    if asked.plan:
        for line in [*lines_of(planner.plan(paper.runnable)), *_left_out(paper)]:
            print(line)
        return
    if not paper.runnable:
        raise FitPruneError(f"no figure of {table.name} can be measured here: {_left_out(paper)[0]}")
    fitted = {cell.reduction for cell in paper.runnable if cell.pruner == FITPRUNE and cell.reduction is not None}
    settings = dataclasses.replace(settings, reductions=tuple(sorted(fitted)))
    with tempfile.TemporaryDirectory(prefix="fitprune-paper-") as folder:
        bench = Bench(settings, RunFolder(Path(folder)), store, device)
        outcomes = run_paper(paper, bench, store, chosen, device, lambda line: print(line, file=sys.stderr, flush=True))
    questions = "all questions" if asked.limit is None else f"{asked.limit} questions a suite"
    circumstances = f"{chosen.label}, {paper.tokens} visual tokens; {asked.data} data, {questions}"
    _write(asked.output, view_of(paper, outcomes, circumstances, again), f"{table.name}-{Path(chosen.name).name}")


def _checked(asked: argparse.Namespace, table: PublishedTable) -> "ChosenModel":
    """What needs no model in memory; fills in the data. Raises FitPruneError; leaves nothing behind."""
    from baselines.registry import PRUNERS
    from harness.models.devices import check_device
    from harness.models.family_names import announced
    from harness.models.loading import require_model
    from harness.models.registry import find_model
    from harness.results.store import Store

    asked.suite = known_names("suite", asked.suite, SUITES)
    asked.pruner = known_names("pruner", asked.pruner, PRUNERS)
    known = list(dict.fromkeys(row.setting.tokens for row in table.rows if row.method != DENSE and row.setting.tokens))
    if asked.tokens is not None and asked.tokens not in known:
        has = ", ".join(map(str, known)) or "rows of another kind alone"
        raise FitPruneError(f"table {table.name} has no rows of {asked.tokens} visual tokens; it has {has}")
    chosen = announced(asked.model or table.model)
    check_device(asked.device)
    require_model(chosen.name)
    if asked.data is None:
        asked.data = "mini" if find_model(chosen.name).kind == "embedded" else "hub"
    if not asked.plan:
        Store(asked.results).check_writable()
        check_folder(asked.output, "the page")
    return chosen


def _paper(asked: argparse.Namespace, table: PublishedTable, model: str, planner: "Planner") -> "Paper":
    from fitprune.models.sizes import visual_tokens
    from harness.paper.cells import paper_of

    facts = planner.shelf.facts(model)
    tokens = visual_tokens(facts.config) or planner.resolver.pruners.calibrated.typical_tokens(facts)
    assert tokens is not None
    return paper_of(table, model, facts.config, tokens, asked.data, asked.suite, asked.pruner, asked.tokens)


def _left_out(paper: "Paper") -> list[str]:
    """A line for each reason why figures cannot run, with the first of the rows that they are in."""
    rows: dict[str, list[str]] = {}
    for entry in paper.cells:
        if entry.cell is None:
            rows.setdefault(entry.reason, []).append(f"{entry.row.method}, {entry.row.setting.name}")
    return [
        f"{len(of)} figure{'s' * (len(of) > 1)} cannot: {reason} ({of[0]}{', …' * (len(set(of)) > 1)})"
        for reason, of in rows.items()
    ]


def _write(folder: Path, view: "View", stem: str) -> None:
    """Both forms of the page."""
    from reports.page.html import rendered
    from reports.paper.markdown import to_markdown

    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".md", to_markdown(view)), (".html", rendered("paper.html", view=view))):
        write_atomically(folder / (stem + suffix), [text])
    print(f"{view.sums} {folder / stem}.html, .md")
