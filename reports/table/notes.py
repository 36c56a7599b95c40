"""How a table was measured, in sentences, and the command that measures it again."""

import csv
from collections.abc import Iterable
from importlib import resources

from baselines.served import NOTE, flags
from harness.bench.again import BATCH_SIZE, suites_command
from harness.cells import AUTHORS, CellSettings
from harness.results.result import Result
from harness.results.table import Table
from harness.results.texts import ROUGHLY
from harness.tasks.specs import SUITES, suite_title
from reports.table.points import PARETO
from reports.table.texts import each, questions, refusal

MEASUREMENT = (
    "Scores are lmms-eval's own, in points of 0–100; in parentheses the drop, dense minus pruned on the same questions, with "
    "the half-width of its 95 % interval, or in brackets what of the interval is possible. Intervals are clustered by image "
    "(Miller 2024, arXiv 2411.00640), and hold also where only a handful of images differ. The average is the unweighted mean "
    "over the suites shown; the worst suite is that of the largest drop.",
    "vs random, vs downsample: by how many points the average is above that of random pruning, of a smaller input image, at "
    "the same asked reduction, paired on the same questions; ▲ above and ▼ below where the 95 % interval leaves out 0, ≈ "
    "elsewhere. ʳ and ᵈ mark scores of single suites that are above them so. Each is a 95 % statement of its own.",
    PARETO,
    "FLOPs are end to end for one question: vision tower, projector, prompt, the pruner's scoring and the tokens really "
    "generated; 1 multiply-accumulate = 2 FLOPs. Saved is the measured share of the visual tokens' decoder FLOPs, scoring paid "
    "for: the figure that methods are compared at.",
    "Time is that of a prefill as a share of the dense model's, measured in turn in the same process: median of repeats after "
    f"warm-up. {ROUGHLY}.",
)


def notes_of(table: Table) -> list[str]:
    """What a reader of the table must know: how, where and with what it was measured, and what its results note."""
    return [
        *MEASUREMENT,
        " ".join([NOTE, *flags(each(row.cell.pruner for row in table.rows))]),
        *table.average_notes(suite_title),
        *_foretells(table),
        *_latencies(table),
        *_circumstances(table.results),
        *_refusals(table),
    ]


def _foretells(table: Table) -> list[str]:
    """How well the table of a model that ships foretells large ones, for the very weights that docs/validity.md is about."""
    known = resources.files("reports.table").joinpath("foretold.csv").read_text(encoding="utf-8")
    return [
        f"How well it foretells large models: with {row['tables']} printed tables of {row['printed_model']} at {row['tokens']} "
        f"visual tokens the rank correlation of what methods retain is {row['mean']} on average (fitprune validity, "
        "docs/validity.md); printed tables agree with each other at 0.90 and more."
        for row in csv.DictReader(known.splitlines())
        if (row["model"], row["revision"]) == (table.model, table.revision)
    ]


def _latencies(table: Table) -> list[str]:
    """What the prefill times were taken on, and what disturbed them."""
    on = table.timed_on
    told = (
        [f"Prefill was timed on {', '.join(on)}" + ("; it says nothing about a GPU." if on == ["cpu"] else ".")] if on else []
    )
    notes = [(result.latency_ms or {}).get("notes") for result in table.results]
    return told + each(f"Times: {text}" for own in notes if isinstance(own, list) for text in own)


def _circumstances(results: Iterable[Result]) -> list[str]:
    """Where and with what the figures were measured, and what the results themselves note."""
    results = list(results)
    versions = each(f"{name} {version}" for result in results for name, version in result.versions.items())
    notes = [
        f"{questions(results)}.",
        f"Weights {', '.join(each(result.revision for result in results))}; "
        f"device {', '.join(each(result.device for result in results))}; "
        f"{', '.join(versions)}; seed {', '.join(each(str(result.seed) for result in results))}; "
        f"{min(result.date for result in results)[:10]} to {max(result.date for result in results)[:10]}.",
    ]
    if (processes := max((result.latency_ms or {}).get("processes") or 1 for result in results)) > 1:
        notes.append(f"Times were taken while up to {processes} processes shared the machine.")
    if any(result.verdict == "fail" for result in results):
        drops = ", ".join(each(f"{result.max_drop:g}" for result in results if result.max_drop is not None))
        notes.append(f"✗: the drop is above the allowed {drops} points with 95 % confidence.")
    return notes + each(note for result in results if result.note for note in result.note.split("; "))


def _refusals(table: Table) -> list[str]:
    """The reasons of rows with a result on some suites only; the others' stand in their rows."""
    partial = [row for row in table.rows if row.results and row.refused.keys() - row.results.keys()]
    return [f"{row.name} has no result on every suite: {refusal(row)}" for row in partial]


def _other_frames(result: Result) -> int | None:
    """Frames by which videos were shown, where these are not as many as the suite has by itself."""
    frames, suite = result.generation.get("frames"), SUITES.get(result.suite)
    return None if suite is None or frames == suite.frames else frames


def command_of(table: Table) -> str:
    """One command for the whole table; each result's file holds that of its own cell."""
    results = table.results
    whole = set(table.suites) >= {name for name, spec in SUITES.items() if spec.everyday}
    settings = CellSettings(
        data=table.data,
        limit=table.limit,
        batch_size=max(result.generation.get("batch_size") or BATCH_SIZE for result in results),
        seed=results[0].seed,
        frames=next((frames for result in results if (frames := _other_frames(result))), None),
        reductions=tuple(sorted({result.reduction_asked for result in results if result.reduction_asked is not None})),
    )
    recipes = each(result.recipe for result in results if result.recipe)
    choices = each(result.positions_asked or AUTHORS for result in results if not result.cell.is_dense)
    return suites_command(
        [] if whole else table.suites,
        table.model,
        each(result.pruner for result in results),
        settings,
        recipe=recipes[0] if len(recipes) == 1 and not settings.reductions else "",
        positions=choices if choices != [AUTHORS] else (),
        max_drop=max((result.max_drop for result in results if result.max_drop is not None), default=None),
        gate="sequential" if table.sequential else "",
    )
