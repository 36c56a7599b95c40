"""A pruning recipe: how many visual tokens leave in each decoder layer."""

import dataclasses
import json
import operator
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fitprune import flops
from fitprune.errors import RecipeError
from fitprune.sizes import DecoderSizes

FORMAT = "fitprune-recipe"
VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """How many visual tokens leave in each decoder layer, at a given number of visual tokens.

        Recipe(drop=[0, 12, ...], visual_tokens=576)

    Attributes:
        drop: one count per decoder layer, after that layer's attention; asking for more than is left drops what is left.
        visual_tokens: the prompt's visual tokens that `drop` is meant for; `schedule` scales to others.
        sizes: the decoder that the recipe was fitted on; None for a recipe written by hand.
        provenance: how it came to be (asked reduction, samples, versions, …), for people.

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
        """Write readable JSON, atomically."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "visual_tokens": self.visual_tokens,
            "drop": self.drop,
            "reduction": self.reduction if self.sizes is not None else None,
            "model": dataclasses.asdict(self.sizes) if self.sizes is not None else None,
            "provenance": self.provenance,
        }
        path = Path(path)
        # One line per entry, so that the counts of a recipe stand side by side.
        text = "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()) + "\n}"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            raise RecipeError(f"cannot write a recipe to {path}: {error.strerror}.") from None
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recipe":
        """Read what `save` wrote.

        Raises:
            RecipeError: not there, not JSON, not a recipe, or of a newer format. Whether it fits a model is checked when
                it is applied.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}.") from None
        except ValueError as error:
            raise RecipeError(f"the recipe {path} is not JSON: {error}.") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise RecipeError(f'{path} is not a recipe: it lacks "format": "{FORMAT}".')
        if record.get("version") != VERSION:
            raise RecipeError(f"the recipe {path} has format version {record.get('version')}; this release reads {VERSION}.")
        try:
            sizes = DecoderSizes(**record["model"]) if record.get("model") is not None else None
            return cls(record["drop"], record["visual_tokens"], sizes, dict(record.get("provenance") or {}))
        except KeyError as error:
            raise RecipeError(f"the recipe {path} lacks {error}.") from None
        except (TypeError, ValueError) as error:
            raise RecipeError(f"the recipe {path} is malformed: {error}") from None


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
