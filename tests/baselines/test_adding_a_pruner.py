"""The guide's example is a pruner that works, and one from another package is found by its entry point."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from tests.support import warm
from tests.support.models import build, kept, prompt

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "adding-a-pruner.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)[0]


@pytest.fixture
def package(tmp_path):
    """A folder that looks to Python like the installed package of the guide; returns how to write its entry point."""
    (tmp_path / "loudest.py").write_text(CODE)
    info = tmp_path / "loudest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loudest\nVersion: 1.0\n")

    def enter(line="loudest = loudest:Loudest"):
        (info / "entry_points.txt").write_text(f"[fitprune.pruners]\n{line}\n")
        return tmp_path

    return enter


def run(package, *arguments):
    path = os.pathsep.join(part for part in (str(package), str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return subprocess.run(
        [warm.python(), *arguments],
        env=os.environ | {"PYTHONPATH": path, "PYTEST_PLUGINS": "tests.support.short_cells"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_code_is_40_lines_and_prunes(package, monkeypatch):
    monkeypatch.syspath_prepend(package())
    from loudest import Loudest

    assert len([line for line in CODE.splitlines() if line.strip()]) <= 42
    model = build("llama", 4)
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad(), Loudest.for_reduction(model.config, 0.5)(model) as trace:
        model(**inputs)
    features = model.get_image_features(inputs["pixel_values"]).pooler_output[0]
    loudest = features.norm(dim=-1).argsort(descending=True)[: len(kept(trace)[0])]
    assert kept(trace)[0] == sorted(loudest.tolist())


def test_a_pruner_of_another_package_runs_in_the_benchmark(package, tmp_path):
    suites = ["suites/test_pope.py", "--pruner", "loudest", "--reduction", "0.5", "--limit", "4", "--max-drop", "100"]
    ran = run(package(), "-m", "pytest", *suites, "--results", str(tmp_path / "results"), "-p", "no:cacheprovider")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "loudest 0.5" in ran.stdout


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("loudest = loudest:Quietest", "cannot be loaded from loudest:Quietest"),
        ("loudest = loudest:DecoderSizes", "no subclass of fitprune.Pruner"),
        ("louder = loudest:Loudest", "calls itself 'loudest'"),
        ("fastv = loudest:Loudest", "two pruners are called 'fastv'"),
    ],
)
def test_an_entry_point_that_is_no_pruner_is_refused_in_one_line(package, entry, words):
    name = entry.partition(" ")[0]
    code = (
        "from baselines.registry import get_pruner_class",
        "try:",
        f"    get_pruner_class('{name}')",
        "except ValueError as error:",
        "    print(error)",
    )
    ran = run(package(entry), "-c", "\n".join(code))
    assert words in ran.stdout, ran.stdout + ran.stderr
    assert ran.stdout.count("\n") == 1
