"""Solvers of a FLOPs budget for methods that give every view a coarser grid of tokens."""

import contextlib
import math
from typing import Any

from baselines.shared.budget import nearest_choice
from fitprune.errors import BudgetError
from fitprune.models.sizes import DecoderSizes, tower_sizes


def full_side(model_config: Any) -> int:
    """The number of rows of patches, and of columns, in a view of a model with this configuration.

    Raises:
        UnsupportedModel: the vision tower has another form than CLIP's or SigLIP's.
    """
    return math.isqrt(tower_sizes(model_config).patches)


def nearest_grid(
    method: str, model_config: Any, reduction: float, given_tokens: int | None, scoring: Any = None
) -> tuple[int, int]:
    """Solve for the rows and columns of a view's grid that save `reduction` of the decoder FLOPs to within a point.

    Among such grids, the solver takes one whose rows and columns differ least. A grid never has more rows than columns. The
    arguments are those of `budget.nearest_choice`.

    Raises:
        BudgetError: no grid meets the budget. The message names the nearest savings.
        UnsupportedModel: see `full_side`.
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
