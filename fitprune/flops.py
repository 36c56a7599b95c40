"""`visual_macs`: the paper's cost of a recipe, in multiply-accumulates of the visual tokens in the decoder.

Source: FitPrune, arXiv 2409.10197. Text tokens, the vision tower, the projector and `lm_head` are left out, as in the
paper; the end-to-end figure is not here but in the harness. One multiply-accumulate (MAC) is two FLOPs.
"""

import operator
from collections.abc import Sequence
from typing import Any

from fitprune.errors import FitPruneError, RecipeError


def visual_macs(
    drop: Sequence[int],
    visual_tokens: int,
    hidden_size: int,
    intermediate_size: int,
    kv_size: int | None = None,
    q_size: int | None = None,
) -> int:
    """MACs of the visual tokens over all decoder layers, when layer `l` drops `drop[l]` of them after its attention.

    A layer that `v` tokens enter and `v'` leave costs, with hidden size H and FFN size I:

    - q, k, v projections of all that enter: v·H·(q_size + 2·kv_size), which is 3vH² with multi-head attention;
    - attention among all that enter, QKᵀ and PV: 2v²·q_size, which is 2v²H;
    - output projection of those kept: v'·q_size·H, which is v'H²;
    - three FFN matrices for those kept: 3IHv'.

    `drop` has one entry per layer; asking for more than is left drops what is left. `kv_size` is key-value heads × head
    size for grouped-query attention, `q_size` query heads × head size; both are by default the hidden size.
    Raises RecipeError for negative or fractional numbers.
    """
    present = _count("visual_tokens", visual_tokens)
    hidden = _count("hidden_size", hidden_size)
    intermediate = _count("intermediate_size", intermediate_size)
    kv = hidden if kv_size is None else _count("kv_size", kv_size)
    query = hidden if q_size is None else _count("q_size", q_size)
    macs = 0
    for layer, dropped in enumerate(drop):
        kept = max(present - _count(f"drop[{layer}]", dropped), 0)
        macs += layer_macs(present, kept, hidden, intermediate, kv, query)
        present = kept
    return macs


def layer_macs(entered: Any, kept: Any, hidden_size: int, intermediate_size: int, kv_size: int, q_size: int) -> Any:
    """MACs of one layer that `entered` visual tokens enter and `kept` leave; counts are numbers or arrays, elementwise.

    The four terms are those of `visual_macs`.
    """
    projections = entered * hidden_size * (q_size + 2 * kv_size)
    attention = 2 * entered**2 * q_size
    return projections + attention + kept * q_size * hidden_size + 3 * intermediate_size * hidden_size * kept


def reduction(
    drop: Sequence[int],
    visual_tokens: int,
    hidden_size: int,
    intermediate_size: int,
    kv_size: int | None = None,
    q_size: int | None = None,
) -> float:
    """Share of `visual_macs` that `drop` saves against dropping nothing, 0 to 1; 0.0 where there is nothing to save.

    Arguments and errors as in `visual_macs`.
    """
    sizes = (visual_tokens, hidden_size, intermediate_size, kv_size, q_size)
    pruned = visual_macs(drop, *sizes)
    dense = visual_macs([0] * len(drop), *sizes)
    return 1.0 - pruned / dense if dense else 0.0


def check_reduction(reduction: float) -> None:
    """Raise a `FitPruneError` unless `reduction` is a number in (0, 1)."""
    if isinstance(reduction, bool) or not isinstance(reduction, int | float) or not 0 < reduction < 1:
        raise FitPruneError(f"reduction must be a number between 0 and 1 (a share of FLOPs), not {reduction!r}.")


def _count(name: str, value: int) -> int:
    """`value` as a non-negative int (also from NumPy or a 0-d integer tensor); bools and floats are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise RecipeError(f"{name} must be a whole number, got {value!r}") from None
    if number < 0:
        raise RecipeError(f"{name} must not be negative, got {number}")
    return number
