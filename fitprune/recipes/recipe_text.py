"""What is said about a recipe: its name, what it saves, the tokens it leaves, and the published recipe nearest to it."""

from itertools import accumulate
from pathlib import Path

from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.published import SCHEME, published_names
from fitprune.recipes.recipe import Recipe


def nearest_published(sizes: DecoderSizes | None, reduction: float) -> tuple[str, Recipe] | None:
    """Name and recipe of the published one whose reduction is nearest, for a decoder of these sizes; None without one."""
    recipes = [(name, Recipe.load(SCHEME + name)) for name in published_names()]
    same = [(name, recipe) for name, recipe in recipes if recipe.sizes == sizes]
    return min(same, key=lambda pair: abs(pair[1].reduction - reduction), default=None)


def tokens_left(recipe: Recipe, visual_tokens: int | None = None) -> list[int]:
    """Visual tokens left after each decoder layer, at the recipe's own number of tokens or at another."""
    tokens = recipe.visual_tokens if visual_tokens is None else visual_tokens
    return [tokens - dropped for dropped in accumulate(recipe.schedule(tokens))]


def short_name(name: str) -> str:
    """What a legend calls a recipe: its file's name without folder and suffix, or `published llava-1.5-7b@60`."""
    if name.startswith(SCHEME):
        return f"published {name.removeprefix(SCHEME)}"
    return Path(name).stem


def title(recipe: Recipe, name: str) -> str:
    """The model, where the recipe names it; else the recipe's own name."""
    return str(recipe.provenance.get("model") or short_name(name))


def saving(recipe: Recipe) -> str:
    """`saves 59.7 % of the visual tokens' FLOPs`, or that it cannot be said."""
    if recipe.sizes is None:
        return "names no architecture, so what it saves is unknown"
    return f"saves {recipe.reduction:.1%} of the visual tokens' FLOPs"
