"""`Recipe`: how many visual tokens leave in each decoder layer."""

import dataclasses
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitprune.errors import RecipeError
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes import file, published, sharing
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
    def load(cls, path: str | os.PathLike[str], require_certificate: bool | Mapping[str, Any] = False) -> "Recipe":
        """Read what `save` wrote; `published:llava-1.5-7b@60` in place of a path is a published recipe.

        Args:
            require_certificate: True refuses a recipe without a certificate of its own counts. A mapping also compares
                `model`, `revision` and `weights` with what is at hand, `data` (suite → digest of its data), and `max_drop`, the
                points that it must have been certified for: `{"weights": "…", "data": {"gqa": "…"}, "max_drop": 1.0}`.

        Raises:
            RecipeError: not there, not JSON, not a recipe, of another format version, or edited to something that
                contradicts itself. Whether it fits a model is checked when it is applied.
        """
        name = os.fspath(path)
        if name.startswith(published.SCHEME):
            recipe = cls._of(published.entry(name.removeprefix(published.SCHEME)))
        else:
            recipe = cls._of(file.read(Path(path)))
        if require_certificate is not False:
            recipe._require_certificate(name, {} if require_certificate is True else require_certificate)
        return recipe

    def _require_certificate(self, name: str, here: Mapping[str, Any]) -> None:
        certificate = self.certificate
        if certificate is None:
            raise RecipeError(f"the recipe {name} has no certificate; fitprune tune writes one.")
        if wrong := sorted(here.keys() - {"model", "revision", "weights", "data", "max_drop"}):
            raise RecipeError(f"require_certificate takes model, revision, weights, data and max_drop, not {', '.join(wrong)}.")
        model = {key: value for key, value in here.items() if key not in ("data", "max_drop")}
        if reason := certificate.void(self.counts, model, here.get("data")):
            raise RecipeError(f"the recipe {name}: {reason}.")
        for suite in certificate.suites:
            if "max_drop" in here and suite.margin > here["max_drop"]:
                raise RecipeError(
                    f"the recipe {name} is certified to lose at most {suite.margin:g} points on {suite.suite}, "
                    f"not {here['max_drop']:g}."
                )

    @classmethod
    def from_hub(
        cls, repository: str, revision: str | None = None, require_certificate: bool | Mapping[str, Any] = False
    ) -> "Recipe":
        """The recipe of a hub repository, "user/name", at a revision; `require_certificate` as in `load`.

        Raises:
            RecipeError: there is none, the hub cannot be reached, or what `load` refuses.
        """
        return cls.load(sharing.fetch(repository, revision), require_certificate)

    def push_to_hub(self, repository: str, private: bool = False) -> str:
        """Write it to a hub repository, with a card that shows what it drops and its certificate; returns the commit's address.

        Raises:
            RecipeError: the hub refuses, or the recipe could not be read again.
        """
        return sharing.push(self, repository, private)

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
