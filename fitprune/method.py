"""`FitPrune`: drops the visual tokens that matter least, by a recipe fitted in advance."""

import dataclasses
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from fitprune.errors import BudgetError
from fitprune.fitting.calibrate import Calibration
from fitprune.flops import check_reduction
from fitprune.interface.layout import Keep
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.pruner import Pruner
from fitprune.recipes import published
from fitprune.recipes.recipe import Recipe
from fitprune.scoring.importance import cross_and_self
from fitprune.search.prompts import Batch


@dataclass
class FitPrune(Pruner):
    """FitPrune (arXiv 2409.10197; code github.com/ywh187/FitPrune), training-free.

    Decoder layer l drops the `recipe.drop[l]` visual tokens of lowest cross × self attention. All tokens that enter the layer
    take part in its attention; the dropped ones leave before its output projection, residual sum and feed-forward network.
    The KV cache of a layer keeps all that entered it. Position ids are kept. The method needs column statistics of the
    attention, not its map; SDPA or flash attention stays on. For another number of visual tokens than the recipe's, its
    ratios are used.

    Deviations from the authors' code: any batch size and padding; text-only prompts pass; chunked prefill is refused
    where the authors' code leaves it unpruned.
    """

    name: ClassVar[str] = "fitprune"
    recipe: Recipe

    def check(self, model: nn.Module) -> None:
        self.recipe.for_model(model.config)

    def observed_layers(self, layers: int) -> Collection[int]:
        return [layer for layer, drop in enumerate(self.recipe.drop) if drop > 0]

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> Keep:
        # All of it is known on the host: no layer waits for the device.
        here = tokens.layout
        drops = (self._drop(total, layer) for total in here.totals)
        keep = [max(count - drop, 0) for count, drop in zip(here.counts, drops, strict=True)]
        if not any(keep):
            return Keep(here.absent, tuple(keep))
        cross, own = cross_and_self(tokens, attention)
        return here.keep_counts(cross * own, keep)

    def _drop(self, total: int, layer: int) -> int:
        """Tokens that a prompt of `total` drops in a layer."""
        return self.recipe.schedule(total)[layer] if total else 0

    def params(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "drop": recipe.drop,
            "visual_tokens": recipe.visual_tokens,
            **recipe.scaled_otherwise,
            "positions": self.positions,
            "newlines": self.newlines,
            "provenance": recipe.provenance,
        }

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], revision: str | None = None) -> "FitPrune":
        """FitPrune with the recipe of a file, of a hub repository "user/name", or `published:NAME@P`.

        Raises:
            RecipeError: there is none, or it cannot be read.
        """
        here = os.path.isfile(source) or os.fspath(source).startswith(published.SCHEME)
        return cls(Recipe.load(source) if here else Recipe.from_hub(os.fspath(source), revision))

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        calibration: Calibration | None = None,
        model: nn.Module | None = None,
        batches: Iterable[Batch] | None = None,
        recipe: Recipe | None = None,
    ) -> "FitPrune":
        """Fit a recipe that saves `reduction` of the visual tokens' decoder FLOPs, the scoring included.

        Args:
            model_config: the model's transformers configuration.
            reduction: in (0, 1).
            visual_tokens: rescale the recipe to this number of visual tokens.
            calibration: a `fitprune.fitting.calibrate.Calibration`, so that several budgets share one search;
                otherwise `model` and `batches`, as `fit` takes them, or a ready `recipe`, taken as it is.

        Raises:
            BudgetError: the budget is out of reach, or nothing to calibrate with was given.
        """
        if recipe is None:
            check_reduction(reduction)
            if calibration is None:
                if model is None or batches is None:
                    raise BudgetError(
                        "FitPrune fits its recipe on a model: pass model= and batches=, calibration=, or recipe=."
                    )
                calibration = Calibration(model, batches)
            recipe = calibration.recipe(reduction, scoring=True)
        recipe = recipe.for_model(model_config)
        if visual_tokens is not None and visual_tokens != recipe.visual_tokens:
            recipe = dataclasses.replace(recipe, drop=recipe.schedule(visual_tokens), visual_tokens=visual_tokens)
        return cls(recipe)
