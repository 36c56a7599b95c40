"""Solving a method's free parameter for a FLOPs budget."""

import bisect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fitprune.errors import BudgetError
from fitprune.flops import check_reduction, visual_macs
from fitprune.models.sizes import DecoderSizes, visual_tokens

Choice = TypeVar("Choice")

TOLERANCE = 0.01
"""How far the saving of a discrete parameter may be from what was asked for."""

TEXT_TOKENS = 16
"""Text tokens of a prompt that scoring is estimated with where it looks at them. A longer text matters little: the share of
visual FLOPs that one text token's part in scoring takes is below 0.0005 in the models that ship, below 0.0001 from 7B on."""


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
    scoring: Callable[[int, int], float] | None = None,
) -> tuple[int, int]:
    """How many tokens a method that prunes between layers must drop to save `reduction` of their decoder FLOPs.

    `entering(n, k)` gives the tokens that enter each layer when k of n go; the saving must rise with k. `scoring(n, k)` gives
    the multiply-accumulates that the method spends on choosing them, which are taken off what is saved.

    Returns:
        (n, k): of the counts, the one whose saving is nearest to `reduction`.

    Raises:
        BudgetError: even dropping all of them saves less than `reduction`.
    """
    check_reduction(reduction)
    n = prompt_tokens(model_config, given_tokens)
    saved = _saving(model_config, n, entering, scoring)
    if saved(n) < reduction:
        raise BudgetError(
            f"{method} cannot save {reduction:.1%} of this model's visual-token FLOPs; "
            f"it reaches {saved(n):.1%}, with every visual token dropped."
        )
    enough = 1 + bisect.bisect_left(range(1, n), True, key=lambda k: saved(k) >= reduction)
    return n, max(1, min(enough - 1, enough, key=lambda k: abs(saved(k) - reduction)))


def nearest_choice(
    method: str,
    model_config: Any,
    reduction: float,
    given_tokens: int | None,
    choices: Iterable[Choice],
    entering: Callable[[int, Choice], list[int]],
    scoring: Callable[[int, Choice], float] | None = None,
) -> tuple[int, Choice]:
    """Which value of a discrete parameter saves a share of the decoder FLOPs that is nearest to `reduction`.

    Arguments as in `fewest_dropped`, with a choice in place of k.

    Returns:
        (n, choice).

    Raises:
        BudgetError: the nearest is off by more than `TOLERANCE`; the message says what can be saved.
    """
    check_reduction(reduction)
    n = prompt_tokens(model_config, given_tokens)
    saved = _saving(model_config, n, entering, scoring)
    savings = sorted(((saved(choice), place, choice) for place, choice in enumerate(choices)), key=lambda entry: entry[:2])
    best = min(savings, key=lambda entry: abs(entry[0] - reduction))
    if abs(best[0] - reduction) > TOLERANCE:
        below = [f"{share:.1%}" for share, *_ in savings if 0 < share < reduction][-1:]
        above = [f"{share:.1%}" for share, *_ in savings if share > reduction][:1]
        reach = " or ".join(below + above) or "nothing"
        between = ", and nothing between them" if below and above else ""
        raise BudgetError(
            f"{method} cannot save {reduction:.1%} of this model's visual-token FLOPs; it reaches {reach}{between}."
        )
    return n, best[2]


def _saving(
    model_config: Any,
    n: int,
    entering: Callable[[int, Any], list[int]],
    scoring: Callable[[int, Any], float] | None,
) -> Callable[[Any], float]:
    """The share of n visual tokens' decoder FLOPs that a choice saves, what it spends on scoring taken off."""
    sizes = DecoderSizes.of(model_config)
    costs = sizes.costs()
    dense = sizes.layers * visual_macs([0], n, **costs)

    def saved(choice: Any) -> float:
        spent = sum(visual_macs([0], count, **costs) for count in entering(n, choice))
        return 1 - (spent + (scoring(n, choice) if scoring is not None else 0)) / dense

    return saved
