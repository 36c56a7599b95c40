"""The contents of a recipe as checked plain data: counts, tokens, sizes, provenance."""

import operator
from dataclasses import dataclass, field
from typing import Any

from fitprune import flops
from fitprune.errors import RecipeError
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.certificate import Certificate, counts_digest

SCALINGS = ("left", "counts")


@dataclass(frozen=True)
class RecipeFields:
    """What a recipe holds and what its file says; see `fitprune.recipes.recipe.Recipe` for the attributes.

    Raises:
        RecipeError: counts that are not whole numbers ≥ 0, or no layers or tokens.
    """

    drop: list[int]
    visual_tokens: int
    sizes: DecoderSizes | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    scaling: str = "left"

    def __post_init__(self) -> None:
        if isinstance(self.drop, str) or not hasattr(self.drop, "__iter__"):
            raise RecipeError(f"drop must be a list of counts, one per decoder layer, not {self.drop!r}.")
        object.__setattr__(self, "drop", [_whole("drop", count, 0) for count in self.drop])
        object.__setattr__(self, "visual_tokens", _whole("visual_tokens", self.visual_tokens, 1))
        if not self.drop:
            raise RecipeError("drop is empty; a recipe needs one count per decoder layer.")
        if self.sizes is not None and self.sizes.layers != len(self.drop):
            raise RecipeError(f"drop has {len(self.drop)} counts for a model of {self.sizes.layers} layers.")
        if self.scaling not in SCALINGS:
            raise RecipeError(f"scaling must be {' or '.join(SCALINGS)}, not {self.scaling!r:.60}.")

    @property
    def scaled_otherwise(self) -> dict[str, str]:
        """The entry of a file, and of a key, that says another scaling than the usual."""
        return {} if self.scaling == "left" else {"scaling": self.scaling}

    @property
    def counts(self) -> str:
        """The digest of what decides what is dropped, by which a certificate knows its recipe."""
        return counts_digest(self.drop, self.visual_tokens, self.scaling)

    @property
    def certificate(self) -> Certificate | None:
        """What the recipe was shown not to lose; None where nothing was shown. Whether it holds here, its `void` says."""
        record = self.provenance.get("certificate")
        return None if record is None else Certificate.from_record(record)

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
