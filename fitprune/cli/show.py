"""Print a recipe: what it is for, what it saves, how it was made, the tokens left in each layer; and draw these."""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from fitprune.cli import chart
from fitprune.recipes.file import fingerprint
from fitprune.recipes.recipe import Recipe
from fitprune.recipes.recipe_text import nearest_published, saving, tokens_left

BAR = 40  # characters that stand for all visual tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="FILE|published:NAME@P", help="a recipe file, or one that the authors published")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="picture to draw, .png or .svg")


def run(options: argparse.Namespace) -> None:
    show(options.recipe, options.output)


def show(name: str, picture: Path | None = None) -> None:
    """Print the recipe in a file, or a published one, beside the nearest published recipe of the same architecture.

    Args:
        name: a path, or `published:NAME@PERCENT`.
        picture: a .png or .svg to draw as well.

    Raises:
        FitPruneError: no such recipe, or a picture that cannot be drawn.
    """
    if picture is not None:
        chart.check_drawable(picture)
    recipe = Recipe.load(name)
    published = None if recipe.sizes is None else nearest_published(recipe.sizes, recipe.reduction)
    if published is not None and published[1].drop == recipe.drop:
        published = None
    print(describe(recipe, name, published))
    if picture is not None:
        chart.draw(recipe, name, picture, published)


def describe(recipe: Recipe, name: str, published: tuple[str, Recipe] | None = None) -> str:
    """The recipe in lines of text: what it is for, what it saves, how it was made, tokens left per layer as bars.

    Args:
        recipe: the recipe.
        name: where it is from, a path or a published name.
        published: name and recipe to set beside it, at this recipe's number of tokens.
    """
    lines = [f"{name}: {saving(recipe)}", *_facts(recipe), "", *_table(recipe, published)]
    return "\n".join(lines)


def _facts(recipe: Recipe) -> list[str]:
    """One aligned line per thing that the recipe knows about itself."""
    made, sizes = recipe.provenance, recipe.sizes
    data, budget = made.get("data", {}), made.get("budget", {})
    facts = {
        "model": _listed("{model}, revision {revision}", made),
        "architecture": "" if sizes is None else f"{sizes.describe()} (fingerprint {fingerprint(sizes)})",
        "visual tokens": f"{recipe.visual_tokens}; {tokens_left(recipe)[-1]} are left after the last layer",
        "scaling": "" if recipe.scaling == "left" else "for another number, each layer's count is scaled and rounded down",
        "budget": _listed("{asked:.1%} asked, {reached:.2%} reached", budget)
        + (", scoring paid for" if budget.get("scoring_counted") else ""),
        "mode": _listed("{mode}, alpha {alpha:.4g}", made),
        "data": _listed("{id}, {samples} samples, digest {digest}", data),
        "statistics": _listed("{statistics}", made),
        "versions": ", ".join(f"{package} {version}" for package, version in made.get("versions", {}).items()),
        "date": _listed("{date}", made),
        "source": _listed("{source}", made),
        **({} if recipe.certificate is None else recipe.certificate.facts(recipe.counts)),
    }
    width = max(len(fact) for fact in facts)
    return [f"  {fact:<{width}}  {text}" for fact, text in facts.items() if text]


def _listed(template: str, values: dict[str, Any]) -> str:
    """The parts of a comma-separated template whose values are known."""
    said = []
    for part in template.split(", "):
        with contextlib.suppress(KeyError):
            said.append(part.format_map(values))
    return ", ".join(said)


def _table(recipe: Recipe, published: tuple[str, Recipe] | None) -> list[str]:
    drop, left = recipe.schedule(recipe.visual_tokens), tokens_left(recipe)
    head = f"{'layer':>5}  {'drop':>5}  {'left':>5}  {'':{BAR}}"
    rows = [
        f"{layer:>5}  {dropped:>5}  {rest:>5}  {_bar(rest, recipe.visual_tokens):{BAR}}"
        for layer, (dropped, rest) in enumerate(zip(drop, left, strict=True))
    ]
    if published is not None:
        name, other = published
        head += f"  published {name}"
        rows = [f"{row}  {rest:>5}" for row, rest in zip(rows, tokens_left(other, recipe.visual_tokens), strict=True)]
    return [line.rstrip() for line in (head, *rows)]


def _bar(tokens: int, of: int) -> str:
    """A bar as long as the share of tokens left; any token at all shows."""
    return "#" * (-(-BAR * tokens // of))
