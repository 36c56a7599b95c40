"""Of a product of parameters, the cases that hold every combination of so many values; the others are marked `exhaustive`.

In the default run `@pytest.mark.product(strength=2)` keeps cases with every pair of values, a strength of 1 those with every
value. `without(**parameters)` is true of cases that skip, so that none of them stands for a combination.
"""

from collections import Counter
from collections.abc import Hashable
from itertools import combinations

import pytest


def mark_exhaustive(items):
    """Mark all cases of a marked product that are not of its `selection`."""
    products = {}
    for item in items:
        if (mark := item.get_closest_marker("product")) is not None:
            products.setdefault((item.path, item.cls, item.originalname), (mark.kwargs, []))[1].append(item)
    for options, cases in products.values():
        without = options.get("without", lambda **parameters: False)
        stands = [item for item in cases if not without(**item.callspec.params)]
        chosen = {id(stands[place]) for place in selection([values(item) for item in stands], options["strength"])}
        for item in cases:
            if id(item) not in chosen:
                item.add_marker(pytest.mark.exhaustive)


def values(item):
    """Axis → value, or what tells one value from another. Parameters that vary together are one axis."""
    named = [mark.args[0] for mark in item.iter_markers("parametrize")]
    axis = {name: names for names in named if not isinstance(names, str) for name in names}
    found = {}
    for name, value in item.callspec.params.items():
        found.setdefault(axis.get(name, name), []).append(value if isinstance(value, Hashable) else id(value))
    return {name: tuple(parts) for name, parts in found.items()}


def selection(cases, strength):
    """The places of cases, dicts of axis → value, that together hold every combination of `strength` values that there is.

    The case that adds most combinations is next; of equals, that whose values were used least, then the first.
    """
    left = {place: set(combinations(case.items(), strength)) for place, case in enumerate(cases)}
    used = Counter()
    while left:
        best = max(left, key=lambda place: (len(left[place]), -sum(used[part] for part in cases[place].items())))
        held = left.pop(best)
        if not held:
            return
        yield best
        used.update(cases[best].items())
        for combined in left.values():
            combined -= held
