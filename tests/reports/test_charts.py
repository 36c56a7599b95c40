"""The pictures of score against cost."""

import re

from reports.charts.charts import svg_of, tradeoff
from reports.table.points import FLOPS

SCORES = {"one": 96.9, "two": 96.4, "three": 96.2, "far": 68.0}


def test_names_at_the_ends_of_lines_do_not_cover_one_another():
    """Three methods within a point: their names stand a line's height apart, the highest where its line ends."""
    points = [
        {"method": method, "name": method, "x": x, "from": x, "to": x, "score": score, "low": score - 2, "high": score + 2}
        | {"optimal": False, "named": True}
        for method, score in SCORES.items()
        for x in (0.4, 0.6)
    ]
    drawn = svg_of(tradeoff(FLOPS, list(SCORES), points).properties(width=560, height=340))
    found = re.findall(r"method: (\w+)\"[^>]*\"text mark\"[^>]*translate\([\d.]+,([\d.]+)\)", drawn)
    heights = {method: float(height) for method, height in found}
    assert list(heights) == list(SCORES)
    assert heights["two"] - heights["one"] >= 11
    assert heights["three"] - heights["two"] >= 11
    assert "Score (points): 68; method: far" in drawn  # what nothing covers stays at its line's end
