"""What engines serve is said of methods that there are, with the option and the date, in the list and in the tables."""

import re

import pytest

from baselines.registry import PRUNERS
from baselines.served import NOTE, READ, SERVED, flags, servable_in
from harness.__main__ import main


def test_only_methods_that_there_are_are_servable():
    assert set(SERVED) <= set(PRUNERS)
    assert all(engine and option for engine, option in SERVED.values())


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("cosine", "vLLM"),
        ("dart-embeddings", "TensorRT Edge-LLM"),
        ("cdpruner-embeddings", "OpenVINO GenAI"),
        ("dense", "all"),
        ("downsample", "all"),
        ("dart", "none"),
        ("fitprune", "none"),
        ("cosine+fitprune", "none"),
    ],
)
def test_where_a_method_can_be_served(name, engine):
    assert servable_in(name) == engine


def test_a_table_with_a_servable_method_has_its_option():
    assert flags(["fastv", "dart-embeddings"]) == [
        "dart-embeddings in TensorRT Edge-LLM: --visualPrune --dartReductionRatio R."
    ]
    assert READ in NOTE


def test_methods_are_listed_with_their_engine(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: re.split(r"\s{2,}", line.strip()) for line in lines[1 : 1 + len(PRUNERS)]}
    assert list(listed) == list(PRUNERS)
    assert listed["cosine"] == ["cosine", "before decoder", "kept", "vLLM", SERVED["cosine"][1]]
    assert listed["fastv"] == ["fastv", "between layers", "kept", "none"]
    assert NOTE in lines
