"""A pruning recipe: how many visual tokens leave in each decoder layer."""

import dataclasses
import operator
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fitprune import flops
from fitprune.errors import RecipeError
from fitprune.models.sizes import DecoderSizes


@dataclass(frozen=True)
class Recipe:
    """How many visual tokens leave in each decoder layer, at a given number of visual tokens.

        Recipe(drop=[0, 12, ...], visual_tokens=576)

    Attributes:
        drop: one count per decoder layer, after that layer's attention; asking for more than is left drops what is left.
        visual_tokens: the prompt's visual tokens that `drop` is meant for; `schedule` scales to others.
        sizes: the decoder that the recipe was fitted on; None for a recipe written by hand.
        provenance: how it came to be, for people: of which model and revision, on which data, for which budget, and so on
            (`recipe_file.PROVENANCE` lists the entries).

    Raises:
        RecipeError: counts that are not whole numbers ≥ 0, or no layers or tokens.
    """

    drop: list[int]
    visual_tokens: int
    sizes: DecoderSizes | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.drop, str) or not hasattr(self.drop, "__iter__"):
            raise RecipeError(f"drop must be a list of counts, one per decoder layer, not {self.drop!r}.")
        object.__setattr__(self, "drop", [_whole("drop", count, 0) for count in self.drop])
        object.__setattr__(self, "visual_tokens", _whole("visual_tokens", self.visual_tokens, 1))
        if not self.drop:
            raise RecipeError("drop is empty; a recipe needs one count per decoder layer.")
        if self.sizes is not None and self.sizes.layers != len(self.drop):
            raise RecipeError(f"drop has {len(self.drop)} counts for a model of {self.sizes.layers} layers.")

    def schedule(self, visual_tokens: int) -> list[int]:
        """The counts for another number of visual tokens: per layer, the same share of the tokens stays.

        The tokens left after each layer are rounded, not the drops, so the total is right, no layer drops more than is
        left, and at `self.visual_tokens` the result is `drop` (less what asks for more than is left).
        """
        n, base = operator.index(visual_tokens), self.visual_tokens
        left, before, counts = base, n, []
        for drop in self.drop:
            left = max(left - drop, 0)
            after = (2 * n * left + base) // (2 * base)
            counts.append(before - after)
            before = after
        return counts

    @property
    def reduction(self) -> float:
        """Share of the visual tokens' decoder FLOPs saved (`flops.visual_macs`), scoring not counted, in [0, 1).

        Raises:
            RecipeError: a recipe written by hand does not know the model's sizes; `for_model` gives them.
        """
        if self.sizes is None:
            raise RecipeError(
                "this recipe does not name its model's sizes, which its FLOPs depend on; "
                "call recipe.for_model(model.config).reduction."
            )
        return flops.reduction(self.drop, self.visual_tokens, **self.sizes.costs())

    def for_model(self, config: Any) -> "Recipe":
        """This recipe bound to the model with this transformers configuration.

        Raises:
            RecipeError: it was made for another model, or has the wrong number of layers.
        """
        sizes = DecoderSizes.of(config)
        if self.sizes is not None and self.sizes != sizes:
            raise RecipeError(f"this recipe is for {self.sizes.describe()}; the model is {sizes.describe()}.")
        if len(self.drop) != sizes.layers:
            raise RecipeError(f"this recipe has {len(self.drop)} layers; the model has {sizes.layers}.")
        return dataclasses.replace(self, sizes=sizes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write readable JSON, atomically: the counts, what they save, the architecture, the provenance.

        Raises:
            RecipeError: the file cannot be written, or could not be read again (more dropped than there are tokens).
        """
        from fitprune.recipes import file as recipe_file

        recipe_file.write(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recipe":
        """Read what `save` wrote; `published:llava-1.5-7b@60` in place of a path is a published recipe.

        Raises:
            RecipeError: not there, not JSON, not a recipe, of another format version, or edited to something that
                contradicts itself. Whether it fits a model is checked when it is applied.
        """
        from fitprune.recipes import file as recipe_file
        from fitprune.recipes import published

        name = os.fspath(path)
        if name.startswith(published.SCHEME):
            return published.published_recipe(name.removeprefix(published.SCHEME))
        return recipe_file.read(Path(path))

    @classmethod
    def published(cls, model: str, percent: int) -> "Recipe":
        """The authors' own recipe for a model at a nominal reduction in percent: `Recipe.published("llava-1.5-7b", 60)`.

        What it really saves, `reduction`, is less (10 % saves 6.4 %); see `fitprune.recipes.published`.

        Raises:
            RecipeError: there is none; the message says which there are.
        """
        from fitprune.recipes.published import published_recipe

        return published_recipe(f"{model}@{percent}")


def _whole(name: str, value: Any, least: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise RecipeError(f"{name} must hold whole numbers, not {value!r}.") from None
    if number < least:
        raise RecipeError(f"{name} must be at least {least}, not {number}.")
    return number
