"""Charts, described with Altair: for the page, which draws them itself, and as SVG beside the Markdown.

A point has `method`, `ids`, `name`, `x`, `score`, `low`, `high`, `optimal`, `named` and what its tooltip shows; see
`points_of` in `reports.table.points`.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fitprune.files import is_written_through, write_atomically
from reports.table.headline import named
from reports.table.leaderboard import Leaderboard
from reports.table.points import FLOPS, Axis, places_of, points_of

# Okabe and Ito's colours first, then others that stay apart on white and on black; shapes tell methods apart without colour.
COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31", "#7b68ee"),
    *("#b22222", "#5f9e00", "#c71585", "#708090", "#20a39e", "#a0522d", "#9467bd", "#e377c2"),
)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
GREY, PALE = "#808080", "#c8c8c8"
NAME = "points"  # of the data set that the page fills in


def available() -> bool:
    """Whether the extra `charts` is installed."""
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def runtime() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets `window.vegaEmbed`."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    # In a function of its own, so that its names meet nobody else's.
    return f"(function () {{\n{script}\n}})();"


def tradeoff(axis: Axis, methods: Sequence[str], values: Sequence[Mapping[str, Any]] | None = None) -> Any:
    """Score against cost: for each method a line through its rows, a dashed one for other position ids than its authors'; those
    that are `named` have the 95 % interval as a band, and their names at the cheap end. The dense model is a rule.

    values: the points; None for a chart whose data set `points` is filled in later. A chart with points is a picture, where
    nobody can ask for a method: those that are not `named` are grey, and there is no legend.
    """
    import altair as alt

    base = alt.Chart(alt.NamedData(name=NAME) if values is None else alt.Data(values=list(values)))
    room = alt.Scale(zero=False, nice=values is None, padding=60 if values is None else 90)  # for names
    x = alt.X("x:Q", title=axis.title, axis=alt.Axis(tickCount=6), scale=room)
    y = alt.Y("score:Q", title="Score (points)", scale=alt.Scale(zero=False, nice=True))
    legend = alt.Legend(title=None, orient="bottom", columns=4, symbolLimit=0) if values is None else None
    color: Any = alt.Color("method:N", scale=_cycle(methods, COLORS), legend=legend)
    if values is not None:
        color = alt.when("datum.named || datum.method == 'dense'").then(color).otherwise(alt.value(PALE))
    shape = alt.Shape("method:N", scale=_cycle(methods, SHAPES), legend=legend)
    chosen = alt.selection_point(name="chosen", fields=["method"], bind="legend")

    def shown(as_chosen: float, else_: float) -> Any:
        return alt.when(chosen).then(alt.value(as_chosen)).otherwise(alt.value(else_))

    tooltip = [
        alt.Tooltip("name:N", title="row"),
        alt.Tooltip("figure:N", title="score (drop)"),
        alt.Tooltip("flops:N", title="GFLOPs"),
        alt.Tooltip("prefill:N", title="time, of dense"),
        alt.Tooltip("saved:N", title="saved"),
    ]
    pruned, dense = base.transform_filter("datum.method != 'dense'"), base.transform_filter("datum.method == 'dense'")
    rule = dense.mark_rule(color=GREY, strokeDash=[4, 3], strokeWidth=1.2).encode(y)
    bands = (
        pruned.transform_filter("datum.named")
        .mark_area()
        .encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color=color, detail=["method:N", "ids:N"], opacity=shown(0.13, 0.02))
    )
    width = alt.when("datum.named").then(alt.value(2)).otherwise(alt.value(0.8))
    dash = alt.when("datum.ids").then(alt.value([4, 3])).otherwise(alt.value([1, 0]))
    lines = pruned.mark_line().encode(
        x, y, color=color, detail=["method:N", "ids:N"], opacity=shown(1, 0.12), strokeWidth=width, strokeDash=dash
    )
    heights = base.mark_rule(strokeWidth=1).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color=color, opacity=shown(0.5, 0.05))
    widths = base.mark_rule(strokeWidth=1).encode(alt.X("from:Q"), y, alt.X2("to:Q"), color=color, opacity=shown(0.5, 0.05))
    marks = base.mark_point(filled=True, size=60).encode(
        x, y, color=color, shape=shape, opacity=shown(1, 0.12), tooltip=tooltip
    )
    parts = [rule, bands, lines, heights, *([widths] if axis.has_spread else []), marks.add_params(chosen)]
    at = alt.Y("at:Q", title="Score (points)")
    names = _ends(base).mark_text(align="right", dx=-8, fontWeight="bold")
    parts.append(names.encode(x, at, text="method:N", opacity=shown(1, 0.12)))
    return alt.layer(*parts).properties(width="container", height=380)


def _ends(base: Any) -> Any:
    """The cheap end of each named method, and `at`, the height of its name: lower where one above would cover it."""
    import altair as alt

    known = base.transform_joinaggregate(top="max(high)", bottom="min(low)")
    named = known.transform_filter("datum.method != 'dense' && datum.named")
    named = named.transform_joinaggregate(end="min(x)", groupby=["method"]).transform_filter("datum.x == datum.end")
    # Other position ids may end at the same cost.
    named = named.transform_joinaggregate(best="max(score)", groupby=["method"]).transform_filter("datum.score == datum.best")
    down = named.transform_window(place="row_number()", sort=[alt.SortField("score", order="descending")])
    down = down.transform_calculate(line="datum.place * (datum.top - datum.bottom) * 0.04")
    down = down.transform_calculate(under="datum.score + datum.line")
    down = down.transform_window(least="min(under)", frame=[None, 0], sort=[alt.SortField("place")])
    return down.transform_calculate(at="datum.least - datum.line")


def tokens_left() -> Any:
    """Visual tokens after each decoder layer, one line a row; its data set `points` is filled in later."""
    import altair as alt

    legend = alt.Legend(title=None, orient="bottom", columns=3)
    lines = alt.Chart(alt.NamedData(name=NAME)).mark_line(point=True, interpolate="step-after")
    return lines.encode(
        alt.X("layer:Q", title="Decoder layer (the first is 0)", axis=alt.Axis(tickMinStep=1, format="d")),
        alt.Y("left:Q", title="Visual tokens left after it", scale=alt.Scale(zero=True)),
        color=alt.Color("name:N", scale=alt.Scale(range=list(COLORS)), legend=legend),
        strokeDash=alt.StrokeDash("name:N", legend=legend),
        tooltip=["name:N", "layer:Q", alt.Tooltip("left:Q", format=".1f")],
    ).properties(width="container", height=240)


def certified() -> Any:
    """What each candidate of a search saves against the drop that is not refuted; its data set `points` is filled in later."""
    import altair as alt

    base = alt.Chart(alt.NamedData(name=NAME)).encode(
        alt.X("saves:Q", title="Saved", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False, nice=True, padding=40)),
        alt.Y("most:Q", title="Drop at most (points)"),
    )
    verdicts = ["certified", "not certified"]
    legend = alt.Legend(title=None, orient="bottom")
    marks = base.mark_point(filled=True, size=70).encode(
        color=alt.Color("verdict:N", scale=alt.Scale(domain=verdicts, range=[COLORS[2], COLORS[3]]), legend=legend),
        shape=alt.Shape("verdict:N", scale=alt.Scale(domain=verdicts, range=["circle", "cross"]), legend=legend),
        tooltip=["name:N", alt.Tooltip("saves:Q", format=".1%"), alt.Tooltip("most:Q", format=".2f"), "asked:Q"],
    )
    names = base.mark_text(align="left", dx=8, dy=-6).encode(text="name:N")
    return alt.layer(marks, names).properties(width="container", height=260)


def picture_paths(board: Leaderboard, markdown: Path) -> list[Path]:
    """`leaderboard.svg` beside `leaderboard.md`; `leaderboard-1.svg` and so on where there are several tables;
    none beside a pipe.
    """
    if is_written_through(markdown):
        return []
    if len(board.boards) == 1:
        return [markdown.with_suffix(".svg")]
    return [markdown.with_name(f"{markdown.stem}-{number}.svg") for number, _ in enumerate(board.boards, 1)]


def write_pictures(board: Leaderboard, paths: Sequence[Path]) -> None:
    """Score against FLOPs of each table, averaged or of its one suite, on white; each written whole or not at all."""
    for path, part in zip(paths, board.boards, strict=False):
        methods = list(dict.fromkeys(row.cell.pruner for row in part.table.rows))
        place = places_of(part.table)[0]
        chart = tradeoff(FLOPS, methods, points_of(part.table, place, FLOPS, named(part.table)))
        title = {"text": f"{part.heading}, {place}", "anchor": "start"}
        write_atomically(path, [svg_of(chart.properties(width=560, height=340, title=title))])


def svg_of(chart: Any) -> str:
    """A chart on white."""
    import vl_convert

    chart = chart.configure(background="white", font="Helvetica, Arial, sans-serif").configure_view(stroke="#bbbbbb")
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
    return svg


def _cycle(methods: Sequence[str], values: Sequence[str]) -> Any:
    """A method keeps its colour and shape whichever rows are shown."""
    import altair as alt

    return alt.Scale(domain=list(methods), range=[values[place % len(values)] for place in range(len(methods))])
