"""Solving a FLOPs budget for methods that bring every view to a coarser grid of tokens."""

import contextlib
import math
from typing import Any

from baselines.shared.budget import nearest_choice
from fitprune.errors import BudgetError
from fitprune.models.sizes import DecoderSizes, tower_sizes


def full_side(model_config: Any) -> int:
    """Rows, and columns, of patches in a view of a model with this configuration.

    Raises:
        UnsupportedModel: a tower of another form than CLIP's or SigLIP's.
    """
    return math.isqrt(tower_sizes(model_config).patches)


def nearest_grid(
    method: str, model_config: Any, reduction: float, given_tokens: int | None, scoring: Any = None
) -> tuple[int, int]:
    """Rows and columns of the grid per view that saves `reduction` of the decoder FLOPs to within a point.

    Of all such grids the one whose rows and columns differ least; never more rows than columns. `scoring(n, grid)` as in
    `budget.nearest_choice`.

    Raises:
        BudgetError: no grid does; the message says what the nearest save.
        UnsupportedModel: as `full_side`.
    """
    side = full_side(model_config)
    layers = DecoderSizes.of(model_config).layers

    def entering(n: int, grid: tuple[int, int]) -> list[int]:
        return [round(n * math.prod(grid) / side**2)] * layers

    def nearest(apart: int) -> tuple[int, int]:
        grids = [(rows, rows + more) for more in range(apart + 1) for rows in range(1, side - more + 1)]
        grids.remove((side, side))
        return nearest_choice(method, model_config, reduction, given_tokens, grids, entering, scoring)[1]

    for apart in range(side - 1):
        with contextlib.suppress(BudgetError):
            return nearest(apart)
    return nearest(side - 1)
