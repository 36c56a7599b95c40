"""A results folder that version 0.1 wrote is read, compared and reported as it was by that version.

Its keys do not cover the sources that answered, so none of its cells stands for one of today.

Made before the bench was cut into parts, by

    pytest suites/test_pope.py suites/test_mme.py --model llava-tiny --pruner dense,random,fastv --reduction 0.5 --limit 4

with --save first, of which the cells of POPE with dense and FastV were kept.
"""

import math
from pathlib import Path

import pytest

from harness.gate.saved import SavedRun, compare
from harness.results.store import Store
from harness.statistics import paired_drop
from reports.table.leaderboard import read_leaderboard
from reports.writing.markdown import to_markdown

FOLDER = Path(__file__).parents[2] / "data" / "results-0.1"
ROWS = """
| dense ◆      | 100.0       | –             | 0.0%    | 1.00                   | 0.755    | 100%       | –           | –               | 100.0                     | 100.0       | all           |
| fastv 0.5 ◆  | 81.2 (18.8) | MME 37.5      | 50.1%   | 0.75                   | 0.517    | 69%        | 0.0         | not run         | 100.0 (0.0 \\[0.0, 60.5\\]) | 62.5 (37.5) | none          |
| random 0.5 ◆ | 81.2 (18.8) | MME 37.5      | 49.7%   | 0.81                   | 0.519    | 69%        | –           | not run         | 100.0 (0.0 \\[0.0, 60.5\\]) | 62.5 (37.5) | none          |
"""  # noqa: E501
RESULTS = Store(FOLDER).read_all().results


def test_everything_is_read():
    results, notes = Store(FOLDER).read_all()
    assert not notes
    assert sorted((result.pruner, result.suite) for result in results) == [
        (pruner, suite) for pruner in ("dense", "fastv", "random") for suite in ("mme", "pope")
    ]
    files = {path.name.removesuffix(".answers.jsonl") for path in FOLDER.glob("*.answers.jsonl")}
    assert {result.name for result in results} == files


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"{result.pruner}-{result.suite}")
def test_answers_give_the_drop_that_was_written_with_them(result):
    records = Store(FOLDER).read_answers(result)
    own, dense = result.both(records)
    assert len(own.answers) == len(dense.answers) == 4
    if not result.cell.is_dense:
        drop = paired_drop(dense, own)
        assert (drop.drop, drop.n, drop.clusters) == (result.drop, result.n, result.clusters)
        assert (drop.low, drop.high) == pytest.approx(result.drop_ci95, abs=0.05, nan_ok=True)  # once drawn, now worked out
        assert list(own.to_records(dense)) == records
    else:
        assert list(own.to_records()) == records


@pytest.mark.parametrize("pruner", ["dense", "fastv"])
def test_it_is_compared_with_its_saved_run(pruner):
    (result,) = (read for read in RESULTS if (read.pruner, read.suite) == (pruner, "pope"))
    own = result.both(Store(FOLDER).read_answers(result))[0]
    record = compare(SavedRun(Store(FOLDER), "first"), result, own, "significant", None)
    assert (record["with"], record["score"], record["drop"], record["n"]) == ("first", result.score, 0.0, 4)
    assert record["prefill_change"] == 0 if pruner == "fastv" else math.isnan(record["prefill_change"])


def test_its_report_is_what_it_was():
    text = to_markdown(read_leaderboard(FOLDER))
    assert ROWS in text
    assert "- Weights 53da525d9cf7; device cpu; python 3.11.7, fitprune-bench 0.1.0, torch 2.13.0+cpu" in text
