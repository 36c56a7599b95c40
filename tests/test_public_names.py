"""The names that others import, and that no room's torch or pytest is loaded for one that needs neither."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import baselines
import fitprune
from baselines.registry import CLASS_PATHS, PRUNERS

ROOT = Path(__file__).parents[1]
NAMES = {
    "fitprune": "Pruner FitPrune Recipe fit FitPruneError VisualTokens Attention Selection Trace Vision Calibration Composed "
    "Reader give_reader",
    "fitprune.search": "drop_counts",
    "fitprune.flops": "visual_macs",
    "baselines": "FastV VTW PyramidDrop SparseVLM DART VisionZip FasterVLM VisPruner PruMerge HiRED DivPrune GPrune "
    "SparseVLMPlus SCOPE HoloV HiPrune TRIM CDPruner MMTok CDPrunerEmbeddings Cosine DARTEmbeddings EVS VidCom2 ToMe Random "
    "Uniform Pool Downsample Dense",
    "baselines.registry": "PRUNERS get_pruner_class",
    "harness.models": "load_model",
    "harness.models.llava_hr": "LlavaHrForConditionalGeneration convert_checkpoint",
    "harness.cost": "count",
    "harness.tasks": "tasks_reading build_task",
    "harness.answering": "Answer Answers FitPruneLMM chat",
    "harness.statistics": "paired_drop",
}


@pytest.mark.parametrize(("package", "name"), [(package, name) for package, names in NAMES.items() for name in names.split()])
def test_a_public_name_can_be_imported(package, name):
    assert getattr(importlib.import_module(package), name)


@pytest.mark.parametrize("package", NAMES)
def test_what_a_package_names_is_there_and_nothing_else(package):
    module = importlib.import_module(package)
    assert all(getattr(module, name) is not None for name in getattr(module, "__all__", ()))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_every_method_of_the_registry_is_a_name_of_its_package():
    own = [name for name in CLASS_PATHS if name != "fitprune"]
    assert [getattr(baselines, home) for home in baselines.__all__] == [PRUNERS[name] for name in own]


LIGHT = ["fitprune", "baselines", "harness.models", "harness.cost", "harness.tasks", "harness.answering"]


@pytest.mark.parametrize("package", LIGHT)
def test_a_package_is_light_until_a_name_is_asked_for(package):
    code = f"import sys, {package}; print([name for name in ('torch', 'pytest', 'lmms_eval') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plugin_imports_from_the_root():
    names = ["VisualTokens", "Attention", "Hooks", "DecoderSizes", "Selection", "Trace", "TowerTokens", "Vision", "Pruner"]
    for name in names:
        assert getattr(fitprune, name).__name__ == name
        assert name in fitprune.__all__
