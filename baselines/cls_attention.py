"""What the methods share that rank visual tokens by the attention of the vision tower's [CLS], before the decoder."""

from collections.abc import Callable, Collection
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.budget import fewest_dropped
from fitprune import BudgetError, FitPruneError, Pruner, Selection, UnsupportedModel
from fitprune.sizes import DecoderSizes, tower_sizes
from fitprune.tower import require_tower


def share(total: torch.Tensor, count: int, of: int) -> torch.Tensor:
    """`count` tokens `of` so many, brought to prompts with `total` (batch,) tokens: LongTensor (batch,), rounded."""
    return (total.double() * count / of).round().long()


def part(total: torch.Tensor, ratio: float) -> torch.Tensor:
    """The authors' int(total · ratio), LongTensor like `total`; a hair more, so that whole products stay whole."""
    return (total.double() * ratio + 1e-9).long()


def check_counts(method: str, given: dict[str, int], visual_tokens: int) -> None:
    """Raise a `FitPruneError` unless the counts by name are 0 or more and together at most `visual_tokens`."""
    names = " + ".join(given)
    if visual_tokens < 1 or min(given.values()) < 0 or sum(given.values()) > visual_tokens:
        values = " + ".join(str(value) for value in given.values())
        raise FitPruneError(f"{method} keeps {names} tokens of visual_tokens, 0 up to all; not {values} of {visual_tokens}.")


def check_layers(pruner: Any, model: nn.Module, *layers: int) -> None:
    """Raise a `FitPruneError` unless the model's vision tower has these layers."""
    depth = len(require_tower(model, pruner).layers)
    for layer in layers:
        if not -depth <= layer < depth:
            raise FitPruneError(f"{pruner.name} reads the attention of tower layer {layer}; this tower has {depth} layers.")


def cls_notes(pruner: Any, model: nn.Module) -> list[str]:
    """What a result must say where the tower has no [CLS]."""
    if require_tower(model, pruner).has_cls:
        return []
    return [f"{pruner.name}: no [CLS] in this vision tower, so its patches are ranked by the mean attention they receive"]


class ReadsTowerLayer(Pruner):
    """What methods share that rank by the attention of one layer of the vision tower, their field `layer`."""

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
    """Multiply-accumulates of `Vision.salience` in one layer, for the views of one prompt with so many visual tokens.

    As many views are assumed as the tokens need; a tiled model's padding patches may make it one more.
    """
    sizes = tower_sizes(model_config)
    views = -(-visual_tokens // sizes.patches)
    return views * sizes.tokens * sizes.width * (1 if sizes.has_cls else sizes.patches)


def dropped_before_decoder(
    method: str,
    model_config: Any,
    reduction: float,
    visual_tokens: int | None,
    scoring: Callable[[int, int], int],
    fewest: int = 0,
) -> tuple[int, int]:
    """(n, k) of `budget.fewest_dropped` for a method after which n - k tokens, but at least `fewest`, enter every layer.

    Raises:
        BudgetError: out of reach, or a model whose vision tower has another form than CLIP's or SigLIP's.
    """
    layers = DecoderSizes.of(model_config).layers
    try:
        tower_sizes(model_config)
    except UnsupportedModel as error:
        raise BudgetError(f"{method} cannot run here: {error}") from None

    def entering(n: int, dropped: int) -> list[int]:
        return [max(n - dropped, fewest)] * layers

    return fewest_dropped(method, model_config, reduction, visual_tokens, entering, scoring)


def places_of(mask: torch.Tensor) -> torch.Tensor:
    """LongTensor (batch, most): the places where `mask` (batch, n) is True, ascending, padded with -1 on the right."""
    n = mask.shape[1]
    places = torch.where(mask, torch.arange(n, device=mask.device), n).sort(dim=1).values[:, : int(mask.sum(1).max())]
    return places.masked_fill(places == n, -1)


def rows_at(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows of (batch, n, d) at `places` (batch, m): (batch, m, d); some row where a place is -1."""
    return values.gather(1, places.clamp(min=0)[..., None].expand(-1, -1, values.shape[-1]))


def selection(index: torch.Tensor, hidden: torch.Tensor, made: torch.Tensor) -> Selection:
    """A `Selection` of those rows (batch, m, …) whose `index` is not -1, in their order."""
    filled = index >= 0
    order = (~filled).byte().argsort(dim=1, stable=True)[:, : int(filled.sum(1).max())]
    return Selection(index.gather(1, order), rows_at(hidden, order), made.gather(1, order) & filled.gather(1, order))


def views_of(view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the views (batch, n) that a prompt's tokens come from, -1 for none: the first, and how many; both (batch,)."""
    none = torch.iinfo(view.dtype).max
    first = torch.where(view >= 0, view, none).amin(1)
    views = (view.amax(1) - first + 1).clamp(min=0)
    return torch.where(views > 0, first, 0), views
