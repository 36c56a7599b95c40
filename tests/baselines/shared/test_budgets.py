"""What the authors' budgets come to on LLaVA-1.5-7B, as docs/methods-between-layers.md says."""

import re
from pathlib import Path

import pytest

from baselines.between_layers.dart import DART
from baselines.between_layers.fastv import FastV
from baselines.between_layers.pyramiddrop import PyramidDrop
from baselines.between_layers.sparsevlm import SparseVLM, SparseVLMPlus
from baselines.between_layers.vtw import VTW
from baselines.shared.dry_run import plan
from fitprune import BudgetError
from fitprune.flops import visual_macs
from harness.commands.flops import transformers_config
from harness.models.registry import find_model

pytestmark = pytest.mark.releases
METHODS = {method.__name__: method for method in (DART, FastV, PyramidDrop, SparseVLM, SparseVLMPlus, VTW)}
PAGE = Path(__file__).parents[3] / "docs" / "methods-between-layers.md"
SIZES = {"hidden_size": 4096, "intermediate_size": 11008}
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)\((?:(\w+)=)?(\d*)\)` \| ([\d.]+) \| ([\d.]+) % \|$", TEXT, re.MULTILINE)


def test_the_table_is_read_whole():
    assert len(ROWS) == 12
    assert {name for name, *_ in ROWS} == set(METHODS)


@pytest.mark.parametrize(("name", "option", "value", "tokens", "saved"), ROWS)
def test_what_an_authors_budget_comes_to(name, option, value, tokens, saved):
    given = [int(value)] if value else []
    method = METHODS[name](**{option: given[0]}) if option else METHODS[name](*given)
    planned = plan(method, transformers_config(find_model("llava-1.5-7b")), 64, 576)
    entered = [int(count) for count in planned.visual_in]
    spent = sum(visual_macs([0], count, **SIZES) for count in entered) + sum(planned.scoring_macs)
    assert sum(entered) / 32 == pytest.approx(float(tokens), abs=0.051)
    assert 100 * (1 - spent / visual_macs([0] * 32, 576, **SIZES)) == pytest.approx(float(saved), abs=0.051)


@pytest.mark.parametrize("name", METHODS)
def test_what_can_be_reached(name):
    sentence = TEXT[TEXT.index("What they can reach there") :]
    most = re.search(rf"\b{name} ([\d.]+) %", sentence)[1]
    with pytest.raises(BudgetError, match=rf"it reaches {re.escape(most)}%"):
        METHODS[name].for_reduction(transformers_config(find_model("llava-1.5-7b")), 0.985)
