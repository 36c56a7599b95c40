"""What tables of embedded models say of how well they foretell large ones."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from harness.models.checkpoint import digest
from harness.models.registry import EMBEDDED
from harness.results.store import Store
from reports.table.leaderboard import read_leaderboard
from reports.writing.markdown import to_markdown
from tests.support.boards import put

ROOT = Path(__file__).parents[2]
ROWS = list(csv.DictReader((ROOT / "reports/table/foretold.csv").read_text(encoding="utf-8").splitlines()))


def test_the_figures_are_those_of_the_docs_for_the_weights_that_ship():
    text = (ROOT / "docs/validity.md").read_text(encoding="utf-8")
    first = text[: text.index("## Three seeds")]
    shipped = dict(re.findall(r"^\| `?(llava[\w-]+)`? \| .*\(\d\) \| \**(0\.\d\d)\**(?= \|)", first, re.MULTILINE))
    (shipped["llava-next-tiny"],) = re.findall(r"\*\*mean (0\.\d\d)\*\*", text)
    assert {row["model"]: row["mean"] for row in ROWS} == shipped
    assert {row["model"]: row["revision"] for row in ROWS} == {name: digest(EMBEDDED[name]) for name in shipped}


@pytest.mark.parametrize(("revision", "says"), [(ROWS[0]["revision"], True), ("0123456789ab", False)])
def test_a_table_says_so_where_it_has_these_weights(tmp_path, revision, says):
    put(Store(tmp_path), "a", np.ones(10), model=ROWS[0]["model"], revision=revision, dense_score=100.0)
    sentence = (
        f"at {ROWS[0]['tokens']} visual tokens the rank correlation of what methods retain is {ROWS[0]['mean']} on average"
    )
    assert (sentence in to_markdown(read_leaderboard(tmp_path))) is says
