"""The error budget: its levels by hand, and its error where candidates are tested in an order that hunts for errors."""

import numpy as np
import pytest

from harness.statistics.spending import ErrorBudget


def test_levels_by_hand():
    budget = ErrorBudget(0.06, 3)
    assert budget.level() == pytest.approx(0.02)
    budget.close(budget.level())  # failed
    assert budget.level() == pytest.approx(0.02)
    budget.close()  # all certified: its level is the next one's
    assert budget.level() == pytest.approx(0.04)
    budget.close(budget.level())
    assert budget.left == pytest.approx(0)


def test_of_true_nulls_alone_something_is_certified_as_rarely_as_promised():
    """Each test errs exactly at its level; a chain goes on as long as it errs."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(4000):
        budget, any_wrong = ErrorBudget(0.2, 3), False
        for _ in range(3):
            level = budget.level()
            while erred := rng.random() < level:
                any_wrong |= erred
            budget.close(level)
        wrong += any_wrong
    assert wrong / 4000 == pytest.approx(1 - (1 - 0.2 / 3) ** 3, abs=0.02)
    assert wrong / 4000 <= 0.2
