"""Solvers of a method's free parameter for a FLOPs budget: counts of dropped tokens, and discrete parameters."""

import bisect
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fitprune.errors import BudgetError
from fitprune.flops import check_reduction, layer_macs
from fitprune.models.sizes import DecoderSizes, visual_tokens

Choice = TypeVar("Choice")

TOLERANCE = 0.01
"""The largest distance of a discrete parameter's saving from the saving asked for, as a share of the FLOPs."""

TEXT_TOKENS = 16
"""The length of text that budgets assume where a method's scoring reads text tokens. A longer text matters little: scoring
one text token takes a share of the visual FLOPs below 0.0005 in the models that ship, and below 0.0001 from 7B on."""


def prompt_tokens(model_config: Any, given: int | None) -> int:
    """The number of visual tokens of a prompt: as given, or as the configuration fixes it.

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
    """Solve for the number of visual tokens that a method must drop to save `reduction` of their decoder FLOPs.

    Args:
        method: the name that an error message uses.
        given_tokens: visual tokens of a prompt, see `prompt_tokens`.
        entering: `entering(n, k)` gives the number of tokens that enter each layer when k of n go. The saving must rise with k.
        scoring: `scoring(n, k)` gives the multiply-accumulates of choosing the tokens. They are subtracted from the saving.

    Returns:
        (n, k): n visual tokens, and the count k whose saving is nearest to `reduction`.

    Raises:
        BudgetError: dropping all visual tokens saves less than `reduction`.
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


def dropped_before_decoder(
    method: str,
    model_config: Any,
    reduction: float,
    given_tokens: int | None,
    scoring: Callable[[int, int], float] | None = None,
    *,
    fewest: int = 0,
) -> tuple[int, int]:
    """`fewest_dropped` for a method after which n - k tokens, but at least `fewest`, enter every layer."""
    layers = DecoderSizes.of(model_config).layers

    def entering(n: int, dropped: int) -> list[int]:
        return [max(n - dropped, fewest)] * layers

    return fewest_dropped(method, model_config, reduction, given_tokens, entering, scoring)


def nearest_choice(
    method: str,
    model_config: Any,
    reduction: float,
    given_tokens: int | None,
    choices: Iterable[Choice],
    entering: Callable[[int, Choice], list[int]],
    scoring: Callable[[int, Choice], float] | None = None,
) -> tuple[int, Choice]:
    """Solve for the value of a discrete parameter whose saving of decoder FLOPs is nearest to `reduction`.

    The arguments are those of `fewest_dropped`, with one of `choices` in place of k.

    Returns:
        (n, choice): n visual tokens, and the value.

    Raises:
        BudgetError: the nearest saving is off by more than `TOLERANCE`. The message names the savings on both sides.
    """
    check_reduction(reduction)
    n = prompt_tokens(model_config, given_tokens)
    saved = _saving(model_config, n, entering, scoring)
    savings = sorted(((saved(choice), number, choice) for number, choice in enumerate(choices)), key=lambda entry: entry[:2])
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
    """A function of the choice: the share of n visual tokens' decoder FLOPs that it saves, minus the cost of its scoring."""
    sizes = DecoderSizes.of(model_config)
    costs = sizes.costs()
    dense = sizes.layers * layer_macs(n, n, **costs)

    def saved(choice: Any) -> float:
        spent = sum(layers * layer_macs(count, count, **costs) for count, layers in Counter(entering(n, choice)).items())
        return 1 - (spent + (scoring(n, choice) if scoring is not None else 0)) / dense

    return saved
