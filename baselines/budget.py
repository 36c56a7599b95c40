"""Solving a method's free parameter for a FLOPs budget."""

import bisect
from collections.abc import Callable
from typing import Any

from fitprune.errors import BudgetError
from fitprune.flops import check_reduction, visual_macs
from fitprune.sizes import DecoderSizes, visual_tokens


def prompt_tokens(model_config: Any, given: int | None) -> int:
    """Visual tokens of a prompt: as given, or as the configuration fixes them.

    Raises:
        BudgetError: neither is known.
    """
    n = given if given is not None else visual_tokens(model_config)
    if n is None:
        raise BudgetError(f"a {model_config.model_type} model has no fixed number of visual tokens; pass visual_tokens=.")
    return n


def fewest_dropped(
    method: str,
    model_config: Any,
    reduction: float,
    given_tokens: int | None,
    entering: Callable[[int, int], list[int]],
    scoring: Callable[[int, int], int] | None = None,
) -> tuple[int, int]:
    """How many tokens a method that prunes between layers must drop to save `reduction` of their decoder FLOPs.

    `entering(n, k)` gives the tokens that enter each layer when k of n go, `scoring(n, k)` the multiply-accumulates that
    choosing them takes, for one prompt; the saving must rise with k.

    Returns:
        (n, k): of the counts, the one whose saving is nearest to `reduction`.

    Raises:
        BudgetError: even dropping all of them saves less than `reduction`.
    """
    check_reduction(reduction)
    n = prompt_tokens(model_config, given_tokens)
    costs = DecoderSizes.of(model_config).costs()

    def macs(present: list[int]) -> int:
        return sum(visual_macs([0], count, **costs) for count in present)

    def saved(k: int) -> float:
        spent = macs(entering(n, k)) + (scoring(n, k) if scoring is not None else 0)
        return 1 - spent / macs(entering(n, 0))

    if saved(n) < reduction:
        raise BudgetError(
            f"{method} cannot save {reduction:.1%} of this model's visual-token FLOPs; "
            f"it reaches {saved(n):.1%}, with every visual token dropped."
        )
    enough = 1 + bisect.bisect_left(range(1, n), True, key=lambda k: saved(k) >= reduction)
    return n, max(1, min(enough - 1, enough, key=lambda k: abs(saved(k) - reduction)))
