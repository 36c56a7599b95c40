"""Runs of the suites with made-up answers, in pytest's own process. For `pytest_plugins`, after pytester."""

import os
from importlib import metadata
from pathlib import Path

import pytest
import transformers.models.llama.modeling_llama  # noqa: F401  (models of later tests hold on to it)
from transformers import AutoConfig  # noqa: F401

import harness.plugin.cell
import harness.plugin.parametrize
import harness.plugin.session
import harness.tasks.calibration  # noqa: F401
from tests.support import (
    fake_bench,  # noqa: F401  (imported once here, since pytester forgets what is imported inside a run)
    tiny_llava,
    warm,
)

ROOT = Path(__file__).resolve().parents[2]


SUITES = ROOT / "suites"


INSTALLED = any(entry.value == "harness.plugin.plugin" for entry in metadata.entry_points(group="pytest11"))


PLUGIN = [] if INSTALLED else ["-p", "harness.plugin.plugin"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model `m` that looks complete, and data `d` for all suites."""
    folder = tmp_path_factory.mktemp("place")
    model = folder / "m"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llava"}')
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("processor_config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    tiny_llava.write_suites(folder / "d")
    tiny_llava.write(folder / "d", "calibration", [{"image": tiny_llava.picture(1), "question": "what color 1 ?"}])
    return folder


@pytest.fixture
def run(pytester, place, monkeypatch):
    """Runs pytest in this process, with made-up answers."""
    monkeypatch.setenv("FAKE_LOG", str(pytester.path / "log"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.syspathinsert(ROOT)

    def run(*arguments, suites=("gqa",)):
        paths = [str(SUITES / f"test_{suite}.py") for suite in suites]
        common = ["-p", "tests.support.fake_bench", "-p", "no:cacheprovider", "--results", str(pytester.path / "results")]
        given = {argument for argument in arguments if argument.startswith("--")}
        common += [] if "--model" in given else ["--model", str(place / "m")]
        common += [] if "--data" in given else ["--data", str(place / "d")]
        return pytester.runpytest_inprocess(*PLUGIN, *common, *paths, *arguments)

    run.folder = pytester.path / "results"
    run.log = pytester.path / "log"
    return run


def environment(folder):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return kept | {"FAKE_LOG": str(folder / "log"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def command(place, folder, *arguments):
    """A command line, for a warm interpreter."""
    common = ["-p", "tests.support.fake_bench", "-p", "no:cacheprovider", "--results", str(folder / "results")]
    common += ["--model", str(place / "m"), "--data", str(place / "d")]
    return [warm.python(), "-m", "pytest", *PLUGIN, *common, *arguments]
