"""Parts of the methods that rank visual tokens by the attention of the vision tower's [CLS], before the decoder."""

from collections.abc import Callable, Collection
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared import budget
from baselines.shared.repacked import Repacked
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from fitprune.engine.tower import require_tower
from fitprune.models.sizes import tower_sizes


def check_layers(pruner: Any, model: nn.Module, *layers: int) -> None:
    """Raise a `FitPruneError` unless the model's vision tower has these layers."""
    depth = len(require_tower(model, pruner).layers)
    for layer in layers:
        if not -depth <= layer < depth:
            raise FitPruneError(f"{pruner.name} reads the attention of tower layer {layer}; this tower has {depth} layers.")


def cls_notes(pruner: Any, model: nn.Module) -> list[str]:
    """The note for a result on a model whose tower has no [CLS]; none for other models."""
    if require_tower(model, pruner).has_cls:
        return []
    return [f"{pruner.name}: no [CLS] in this vision tower, so its patches are ranked by the mean attention they receive"]


class ReadsTowerLayer(Repacked):
    """Base class of methods that rank by the attention of one layer of the vision tower, their field `layer`."""

    vision: ClassVar[bool] = True
    layer: int

    def check(self, model: nn.Module) -> None:
        super().check(model)
        check_layers(self, model, self.layer)

    def notes(self, model: nn.Module) -> list[str]:
        return cls_notes(self, model)

    def observed_tower_layers(self, layers: int) -> Collection[int]:
        return [self.layer]


def salience_macs(model_config: Any, visual_tokens: int) -> int:
    """Multiply-accumulates of `Vision.salience` in one layer, for a prompt with this number of visual tokens.

    The number of views is the least that holds the tokens. A tiled model's padding patches may make it one more.
    """
    sizes = tower_sizes(model_config)
    views = -(-visual_tokens // sizes.patches)
    return views * sizes.tokens * sizes.width * (1 if sizes.has_cls else sizes.patches)


def dropped_after_tower(
    method: str,
    model_config: Any,
    reduction: float,
    visual_tokens: int | None,
    scoring: Callable[[int, int], int],
    *,
    fewest: int = 0,
) -> tuple[int, int]:
    """`budget.dropped_before_decoder` for a method that reads the vision tower.

    Raises:
        BudgetError: the budget is out of reach, or the vision tower has another form than CLIP's or SigLIP's.
    """
    try:
        tower_sizes(model_config)
    except UnsupportedModel as error:
        raise BudgetError(f"{method} cannot run here: {error}") from None
    return budget.dropped_before_decoder(method, model_config, reduction, visual_tokens, scoring, fewest=fewest)


def views_of(view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each prompt, the first view that its tokens come from, and the number of these views; both (batch,).

    `view`, LongTensor (batch, n), is the view of each token, -1 for none. A prompt without views has 0 and 0.
    """
    none = torch.iinfo(view.dtype).max
    first = torch.where(view >= 0, view, none).amin(1)
    views = (view.amax(1) - first + 1).clamp(min=0)
    return torch.where(views > 0, first, 0), views
