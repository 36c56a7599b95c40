"""The README's code does what it says."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fitprune import Pruner
from fitprune.interface.tokens import VisualTokens
from tests.support.models import build, kept, prompt

pytestmark = pytest.mark.releases
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_pruner_of_the_guide_prunes():
    (code,) = [block for block in blocks("python") if "class KeepFirst" in block]
    # The guide leaves the imports out.
    names = {"dataclass": dataclass, "Pruner": Pruner, "ClassVar": ClassVar, "torch": torch, "VisualTokens": VisualTokens}
    exec(compile(code, "README.md", "exec"), names)
    model = build("llama", 3)
    with torch.no_grad(), names["KeepFirst"](ratio=0.25)(model) as trace:
        model(**prompt(model, [3, "image", 5]))
    assert all(list(row) == list(range(9)) for row in kept(trace))


def test_the_commands_exist():
    tox = (Path(__file__).parents[1] / "tox.ini").read_text()
    for environment in re.findall(r"tox run -e (\w+)", README):
        assert f"[testenv:{environment}]" in tox
