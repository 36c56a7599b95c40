"""`Recipe`: how many visual tokens leave in each decoder layer."""

import dataclasses
import operator
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitprune.errors import RecipeError
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes import file, published
from fitprune.recipes.fields import RecipeFields


@dataclass(frozen=True)
class Recipe(RecipeFields):
    """How many visual tokens leave in each decoder layer, at a given number of visual tokens.

        Recipe(drop=[0, 12, ...], visual_tokens=576)

    Attributes:
        drop: one count per decoder layer, after that layer's attention; asking for more than is left drops what is left.
        visual_tokens: the prompt's visual tokens that `drop` is meant for; `schedule` scales to others.
        sizes: the decoder that the recipe was fitted on; None for a recipe written by hand.
        provenance: how it came to be, for people: of which model and revision, on which data, for which budget, and so on
            (`fitprune.recipes.file.PROVENANCE` lists the entries).
        scaling: what `schedule` rounds for another number of tokens: "left", the tokens left after each layer; "counts",
            each layer's drop, down, as the authors' code for LLaVA-NeXT does.

    Raises:
        RecipeError: counts that are not whole numbers ≥ 0, no layers or tokens, or another scaling.
    """

    def schedule(self, visual_tokens: int) -> list[int]:
        """The counts for another number of visual tokens: per layer, the same share of the tokens stays.

        The tokens left after each layer are rounded, not the drops (unless `scaling` says so). So the total is right, and no
        layer drops more than is left. At `self.visual_tokens` the result is `drop`, less what asks for more than is left.
        """
        n, base = operator.index(visual_tokens), self.visual_tokens
        left, before, counts = base, n, []
        for drop in self.drop:
            left = max(left - drop, 0)
            after = max(before - drop * n // base, 0) if self.scaling == "counts" else (2 * n * left + base) // (2 * base)
            counts.append(before - after)
            before = after
        return counts

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

    def to_text(self) -> str:
        """What `save` writes."""
        return file.to_text(self)

    def to_record(self) -> dict[str, Any]:
        """The JSON object that `save` writes."""
        return file.to_record(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Recipe":
        """The inverse of `to_record`.

        Raises:
            RecipeError: an entry that is absent, of the wrong kind, or at odds with another one.
        """
        return cls._of(file.from_record(record))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write readable JSON, atomically: the counts, what they save, the architecture, the provenance.

        Raises:
            RecipeError: the file cannot be written, or could not be read again (more dropped than there are tokens).
        """
        file.write(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recipe":
        """Read what `save` wrote; `published:llava-1.5-7b@60` in place of a path is a published recipe.

        Raises:
            RecipeError: not there, not JSON, not a recipe, of another format version, or edited to something that
                contradicts itself. Whether it fits a model is checked when it is applied.
        """
        name = os.fspath(path)
        if name.startswith(published.SCHEME):
            return cls._of(published.entry(name.removeprefix(published.SCHEME)))
        return cls._of(file.read(Path(path)))

    @classmethod
    def published(cls, model: str, percent: int) -> "Recipe":
        """The authors' own recipe for a model at a nominal reduction in percent: `Recipe.published("llava-1.5-7b", 60)`.

        What it really saves, `reduction`, is less (10 % saves 6.4 %); see `fitprune.recipes.published`.

        Raises:
            RecipeError: there is none.
        """
        return cls._of(published.entry(f"{model}@{percent}"))

    @classmethod
    def _of(cls, fields: RecipeFields) -> "Recipe":
        return cls(fields.drop, fields.visual_tokens, fields.sizes, fields.provenance, fields.scaling)
