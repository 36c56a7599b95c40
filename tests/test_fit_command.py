"""`python -m fitprune fit`, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fitprune import Recipe


def fit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fitprune", "fit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_writes_a_recipe_that_saves_what_was_asked(tmp_path: Path) -> None:
    done = fit("--model", "llava-tiny", "--reduction", "0.6", "--samples", "24", "-o", "recipe.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "recipe.json" in done.stdout
    recipe = Recipe.load(tmp_path / "recipe.json")
    assert 0.6 <= recipe.reduction < 0.61
    assert recipe.visual_tokens == 144
    assert recipe.provenance["samples"] == 24
    assert json.loads((tmp_path / "recipe.json").read_text())["model"]["model_type"] == "llava"


def test_several_budgets_go_into_a_folder(tmp_path: Path) -> None:
    done = fit("--model", "llava-tiny", "--reduction", "0.3,0.7", "--samples", "16", "-o", "recipes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mild, hard = (Recipe.load(tmp_path / "recipes" / f"recipe-{budget}.json") for budget in ("0.3", "0.7"))
    assert 0.3 <= mild.reduction < 0.31
    assert 0.7 <= hard.reduction < 0.71


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "llava-tinny", "--reduction", "0.6"], "did you mean llava-tiny"),
        (["--model", "llava-tiny", "--reduction", "1.5"], "between 0 and 1"),
        (["--model", "llava-tiny", "--reduction", "half"], "not 'half'"),
        (["--model", "llava-tiny", "--reduction", "0.6", "--samples", "0"], "--samples must be at least 1"),
        (["--model", "llava-tiny", "--reduction", "0.6", "--data", "nowhere"], "nowhere"),
        (["--model", "llava-1.5-7b", "--reduction", "0.6"], "llava-hf/llava-1.5-7b-hf"),
        (["--model", "llava-tiny", "--reduction", "0.6", "-o", "no/such/recipe.json"], "there is no folder no/such"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments: list[str], says: str, tmp_path: Path) -> None:
    output = [] if "-o" in arguments else ["-o", "recipe.json"]
    done = fit(*arguments, *output, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []
