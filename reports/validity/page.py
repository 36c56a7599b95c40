"""The agreement with printed tables as Markdown, and as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fitprune.errors import FitPruneError
from fitprune.files import write_atomically
from harness.results.table import Table
from harness.results.texts import number
from harness.tasks.specs import suite_title
from reports.charts.charts import svg_of
from reports.table.leaderboard import heading_of
from reports.validity.agreement import (
    COUNTS,
    LEAST,
    Agreement,
    Retained,
    agreements,
    compared,
    everywhere_ahead,
    mean_over_seeds,
    mean_rho,
    measured_retained,
    pooled,
    spearman,
)

Asked = float | Mapping[str, float]
HEADS = ("printed table", "methods in common", "Spearman", "95 % interval", "other printed tables against it")
EXPLAINED = """\
A method counts by what it retains: its score as a share of the dense model's, mean over suites; in print over the columns that
all methods in common have, without ScienceQA. Intervals are a bootstrap's over methods. The last column is the noise ceiling:
how well two printed tables agree, and over how many methods."""


@dataclass(frozen=True)
class Measured:
    """A measured table, or those of several seeds of one model, at what they were asked for.

    Attributes:
        asked: the reduction of the rows to compare, one for all methods or each with its own.
        seeds: model → what each method retains on it.
        here: the mean over the models.
    """

    table: Table
    asked: Asked
    seeds: Mapping[str, Retained]
    here: Retained


def measured(tables: Sequence[Table], asked: Sequence[Asked]) -> Measured:
    """The tables of one model, or of several seeds of one, each at what it was asked for."""
    ordered = sorted(zip(tables, asked, strict=True), key=lambda pair: pair[0].model)
    seeds = {table.model: measured_retained(table, each) for table, each in ordered}
    table = replace(tables[0], model=", ".join(seeds))
    return Measured(table, ordered[0][1], seeds, mean_over_seeds(seeds))


def to_page(of: Measured, model: str, tokens: int, picture: str = "") -> str:
    """How well measured tables foretell what is printed of `model` at `tokens` visual tokens.

    Args:
        picture: the address of the scatter plot, if there is one.

    Raises FitPruneError where nothing can be compared.
    """
    table, asked, here = of.table, of.asked, of.here
    found = _found(of, model, tokens)
    suites = ", ".join(suite_title(suite) for suite in compared(table))
    rows = [
        (a.table.source, len(a.printed), number(a.rho, ".2f"), f"{a.low:.2f} … {a.high:.2f}", _ceiling(a.ceiling))
        for a in found
    ]
    rho, counted = mean_rho(found)
    mean = f"{rho:.2f}, over {counted}" if counted else "none, for no table has so many"
    means = pooled(here, model, tokens)
    rho = spearman(list(means.values()), [here[method] for method in means])
    spread = ["over seeds"] if len(of.seeds) > 1 else []
    heads = ["method", *(a.table.name for a in found), "all tables", "places up", *spread]
    shown = f"\n![Retained here against retained in print]({picture})\n" if picture else ""
    return f"""# {heading_of(table)}, against {model}

{_budgets(asked, here, tokens)} on {suites}, against tables at {tokens} visual tokens.
{EXPLAINED}

{tabulate(rows, headers=HEADS, tablefmt="github", disable_numparse=True)}

Mean correlation with tables of at least {COUNTS} methods in common: {mean}.
Over all {len(means)} methods, each at its mean over the tables that have it, which hardly compare: {number(rho, ".2f")}.
{shown}{_seed_by_seed(of, found, model, tokens)}
## Method by method

Retained in print → here, and in parentheses the places among the methods in common. Methods that are too well off here come
first, by their place over all tables.

{tabulate(_methods(found, means, of), headers=heads, tablefmt="github", disable_numparse=True)}

{_against_controls(of, found, means)}"""


def write_picture(path: Path, of: Measured, model: str, tokens: int) -> None:
    """A scatter of what methods retain in print and here, a panel for each printed table, names at the points."""
    import altair as alt

    panels: list[Any] = []
    for agreement in _found(of, model, tokens):
        pairs = agreement.printed.items()
        values = [{"method": method, "printed": value, "here": agreement.here[method]} for method, value in pairs]
        base = alt.Chart(alt.Data(values=values)).encode(
            alt.X("printed:Q", title="Retained in print (%)", scale=alt.Scale(zero=False, nice=True)),
            alt.Y("here:Q", title="Retained here (%)", scale=alt.Scale(zero=False, nice=True)),
        )
        points = base.mark_point(filled=True, size=60, color="#0072b2", opacity=1)
        names = base.mark_text(align="left", dx=6, dy=-4).encode(text="method:N")
        title = f"{agreement.table.name}: {agreement.rho:.2f}"
        panels.append((points + names).properties(width=300, height=260, title=title))
    write_atomically(path, [svg_of(alt.concat(*panels, columns=2))])


def _found(of: Measured, model: str, tokens: int) -> list[Agreement]:
    asked, here = of.asked, of.here
    found = agreements(here, model, tokens)
    if not found:
        where = f"at reduction {asked:g}" if isinstance(asked, float) else f"with its own parameters for {tokens} tokens"
        hint = "" if isinstance(asked, float) else "; fitprune paper --tokens measures them, --reduction R compares others"
        raise FitPruneError(
            f"no printed table of {model} at {tokens} visual tokens has {LEAST} of the methods with a result on every suite "
            f"{where}: {', '.join(here) or 'none'}{hint}"
        )
    return found


def _budgets(asked: Asked, here: Retained, tokens: int) -> str:
    if isinstance(asked, float):
        return f"At reduction {asked:g}"
    rows = ", ".join(f"{method} {asked[method]:g}" for method in here)
    return f"With each method's own parameters for {tokens} visual tokens, as in print ({rows}),"


def _ceiling(ceiling: Mapping[str, tuple[float, int]]) -> str:
    return ", ".join(f"{name} {rho:.2f} ({count})" for name, (rho, count) in ceiling.items()) or "–"


def _seed_by_seed(of: Measured, found: Sequence[Agreement], model: str, tokens: int) -> str:
    """The correlations of each of several seeds, and of their mean."""
    if len(of.seeds) < 2:
        return ""
    names = [agreement.table.name for agreement in found]
    rows = []
    for seed, own in [*of.seeds.items(), ("mean of their scores", of.here)]:
        here = {method: own[method] for method in of.here}
        alike = agreements(here, model, tokens)
        rhos = {agreement.table.name: agreement.rho for agreement in alike}
        means = pooled(here, model, tokens)
        all_methods = spearman(list(means.values()), [here[method] for method in means])
        figures = (*(rhos[name] for name in names), mean_rho(alike)[0], all_methods)
        rows.append([seed, *(number(figure, ".2f") for figure in figures)])
    heads = ["model", *names, "mean", "all methods"]
    return f"""
## Seed by seed

Seeds of one model, over the methods that all of them have.

{tabulate(rows, headers=heads, tablefmt="github", disable_numparse=True)}
"""


def _methods(found: Sequence[Agreement], means: Retained, of: Measured) -> list[list[str]]:
    ours = {method: of.here[method] for method in means}
    up = {method: _place(means, method) - _place(ours, method) for method in means}
    pairs = [*((agreement.printed, agreement.here) for agreement in found), (means, ours)]
    ordered = sorted(means, key=lambda method: -up[method])
    spread = len(of.seeds) > 1
    return [
        [method, *(_moved(*pair, method) for pair in pairs), f"{up[method]:+d}", *[_spread(of, method)] * spread]
        for method in ordered
    ]


def _spread(of: Measured, method: str) -> str:
    """The lowest and the highest that a method retains over the seeds."""
    values = [seed[method] for seed in of.seeds.values()]
    return f"{min(values):.1f} … {max(values):.1f}"


def _moved(printed: Retained, here: Retained, method: str) -> str:
    if method not in printed:
        return "–"
    return f"{printed[method]:.1f} → {here[method]:.1f} ({_place(printed, method)} → {_place(here, method)})"


def _place(part: Retained, method: str) -> int:
    return 1 + sum(value > part[method] for value in part.values())


def _against_controls(of: Measured, found: Sequence[Agreement], means: Retained) -> str:
    """Which methods stand behind FastV though every table has them ahead, and which behind random pruning; of several seeds,
    which of them do so on some alone.
    """
    controls = (
        ("fastv", everywhere_ahead(found, "fastv"), "ahead of it in every printed table that has both"),
        ("random", set(means), "printed"),
    )
    lines = []
    for control, methods, what in controls:
        if control in of.here:
            behind = {method: sum(seed[method] < seed[control] for seed in of.seeds.values()) for method in sorted(methods)}
            named = [method + _marked(count, len(of.seeds)) for method, count in behind.items() if count]
            lines.append(f"- Behind {control} here ({of.here[control]:.1f}), though {what}: {', '.join(named) or 'none'}.\n")
    return "".join(lines)


def _marked(count: int, of: int) -> str:
    return "" if count == of else f" (on {count} of {of} seeds)"
