"""Draws a recipe as PNG or SVG: visual tokens left after each decoder layer, beside a published recipe."""

from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError
from fitprune.files import check_target
from fitprune.recipes.recipe import Recipe
from fitprune.recipes.recipe_text import saving, short_name, title, tokens_left

SUFFIXES = (".png", ".svg")
SCALE = 3  # pixels of a PNG per point of the drawing: sharp in print at a column's width
HEADROOM = 1.08  # the axis of tokens goes beyond all of them, so that their line can be labelled

# The recipe, and the published one: Okabe and Ito's blue and vermilion. Dashes and hollow squares tell them apart without
# colour.
_COLORS = ("#0072B2", "#D55E00")
_DASHES = ([1, 0], [6, 4])
_FILLS = ("#0072B2", "white")
_SHAPES = ("circle", "square")
_GREY = "#555555"


def check_drawable(path: Path) -> None:
    """Raise a `FitPruneError`, before any work, unless a picture can be drawn to `path`."""
    if path.suffix.lower() not in SUFFIXES:
        raise FitPruneError(f"cannot draw to {path}: the name must end in {' or '.join(SUFFIXES)}.")
    check_target(path, "draw to")
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise FitPruneError(f"drawing needs Altair and vl-convert ({error}): python -m pip install '.[charts]'") from None


def draw(recipe: Recipe, name: str, path: Path, published: tuple[str, Recipe] | None = None) -> None:
    """Write the picture of a recipe to `path`, a .png or .svg.

    Args:
        recipe, name, published: as in `show.describe`.

    Raises:
        FitPruneError: another suffix, no folder, no Altair, or a file that cannot be written.
    """
    check_drawable(path)
    series = [(_label(recipe, short_name(name)), recipe)]
    if published is not None:
        series.append((_label(published[1], f"published {published[0]}"), published[1]))
    chart = _chart(series, recipe.visual_tokens, title(recipe, name), saving(recipe))
    try:
        chart.save(path, format=path.suffix.lower().removeprefix("."), scale_factor=SCALE)
    except OSError as error:
        raise FitPruneError(f"cannot draw to {path}: {error.strerror}.") from None


def _label(recipe: Recipe, name: str) -> str:
    return name if recipe.sizes is None else f"{name}, saves {recipe.reduction:.1%}"


def _chart(series: list[tuple[str, Recipe]], visual_tokens: int, model: str, subtitle: str) -> Any:
    import altair as alt

    labels = [label for label, _ in series]
    layers = len(series[0][1].drop)
    x = alt.X(
        "layer:Q",
        title="Decoder layer (the first is 0)",
        scale=alt.Scale(domain=[-0.5, layers - 0.5], nice=False),
        axis=alt.Axis(tickMinStep=1, grid=False, format="d"),
    )
    y = alt.Y(
        "left:Q",
        title="Visual tokens left after the layer (number)",
        scale=alt.Scale(domain=[0, HEADROOM * visual_tokens], nice=False),
        axis=alt.Axis(values=_ticks(visual_tokens), format="d"),
    )
    legend = alt.Legend(title=None, orient="bottom", labelLimit=400, symbolSize=60, columnPadding=24, offset=10)

    def by_recipe(channel: Any, styles: tuple[str, str]) -> Any:
        return channel("recipe:N", scale=alt.Scale(domain=labels, range=styles[: len(labels)]), legend=legend)

    dense = alt.Chart(alt.Data(values=[{"left": visual_tokens}])).encode(y=y)
    drawn = [
        dense.mark_rule(color=_GREY, strokeDash=[2, 2]),
        dense.mark_text(
            text=f"unpruned: {visual_tokens}", color=_GREY, align="right", baseline="bottom", x="width", dx=-4, dy=-2
        ),
    ]
    values: list[dict[str, Any]] = []
    for (label, recipe), color, dash in zip(series, _COLORS, _DASHES, strict=False):
        points = [
            {"recipe": label, "layer": layer, "left": left} for layer, left in enumerate(tokens_left(recipe, visual_tokens))
        ]
        line = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=1.8, color=color, strokeDash=dash)
        drawn.append(line.encode(x=x, y=y))
        values += points
    marks = alt.Chart(alt.Data(values=values)).mark_point(size=28, strokeWidth=1.4, opacity=1)
    drawn.append(
        marks.encode(
            x=x,
            y=y,
            color=by_recipe(alt.Color, _COLORS),
            fill=by_recipe(alt.Fill, _FILLS),
            shape=by_recipe(alt.Shape, _SHAPES),
        )
    )
    return (
        alt.layer(*drawn)
        .properties(width=460, height=270, title=alt.Title(model, subtitle=subtitle, anchor="start"))
        .configure(font="Helvetica, Arial, sans-serif", background="white")
        .configure_title(fontSize=14, subtitleFontSize=11, subtitleColor=_GREY, offset=12)
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridColor="#e4e4e4")
        .configure_legend(labelFontSize=11)
        .configure_view(stroke="#888888")
    )


def _ticks(most: int) -> list[int]:
    """From 0 to `most`, at most seven round numbers."""
    steps = (digit * 10**power for power in range(len(str(most))) for digit in (1, 2, 5))
    step = next(step for step in steps if most // step <= 6)
    return list(range(0, most + 1, step))
