"""The pictures of score against cost."""

import re

from reports.charts.charts import PALE, svg_of, tradeoff
from reports.table.points import FLOPS

SCORES = {"one": 96.9, "two": 96.4, "three": 96.2, "far": 68.0}


def test_names_at_the_ends_of_lines_do_not_cover_one_another():
    """Three methods within a point: their names stand a line's height apart, the highest where its line ends."""
    points = [
        {"method": method, "name": method, "x": x, "from": x, "to": x, "score": score, "low": score - 2, "high": score + 2}
        | {"ids": "", "optimal": False, "named": True}
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


def test_a_line_joins_rows_of_one_method_with_the_same_position_ids():
    """Kept and repacked rows cost the same; joined, their line would go to and fro between them."""
    points = [
        {"method": method, "ids": ids, "name": method, "x": x, "from": x, "to": x, "score": score, "low": score, "high": score}
        | {"optimal": False, "named": method == "one"}
        for method, ids, score in (("one", "", 90.0), ("one", "kept", 50.0), ("two", "", 70.0))
        for x in (0.4, 0.5, 0.6)
    ]
    drawn = svg_of(tradeoff(FLOPS, ["one", "two"], points).properties(width=560, height=340))
    lines = re.findall(r'<path aria-label="[^"]*"[^>]*aria-roledescription="line mark"[^>]*/?>', drawn)
    heights = [{y for _, y in re.findall(r"[ML]([\d.]+),([\d.]+)", re.search(r' d="([^"]*)"', line)[1])} for line in lines]
    assert sorted(map(len, heights)) == [1, 1, 1]
    assert [("stroke-dasharray" in line and "4,3" in line) for line in lines].count(True) == 1
    assert sum(PALE in line for line in lines) == 1
    assert len(re.findall(r'"text mark"', drawn)) == 1  # `one` is named once, though two lines end there
