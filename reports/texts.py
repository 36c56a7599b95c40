"""How figures are written."""

import math


def plus_minus(value: float, half_width: float) -> str:
    """`88.0 ± 1.0`, without the second where it is not known."""
    return number(value, ".1f") + ("" if math.isnan(half_width) else f" ± {half_width:.1f}")


def number(value: float, form: str) -> str:
    """A formatted number; a dash for NaN."""
    return "–" if math.isnan(value) else format(value, form)
