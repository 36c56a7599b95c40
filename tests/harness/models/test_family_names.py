"""A family's name takes its standard checkpoint where that is on this machine, else its embedded sibling, and says so."""

import shutil
from pathlib import Path

import pytest

from fitprune.errors import FitPruneError
from harness import provider
from harness.__main__ import main
from harness.models.families import FAMILY_NAMES
from harness.models.family_names import ChosenModel, choose_model
from harness.models.loading import load_model, load_processor_of
from harness.models.registry import MODELS, find_model
from tests.support import tiny_llava

EMBEDDED = {"llava-hr": "llava-hr-tiny", "llava-1.5": "llava-tiny", "llava-next": "llava-next-tiny"}
STANDARD = {
    "llava-hr": "llava-hr-7b", "llava-1.5": "llava-1.5-7b", "llava-next": "llava-next-7b",
    "llava-onevision": "llava-onevision-7b", "qwen2.5-vl": "qwen2.5-vl-7b", "qwen3-vl": "qwen3-vl-8b",
    "internvl3": "internvl3-1b", "smolvlm2": "smolvlm2-2.2b", "gemma-3": "gemma-3-4b",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A machine on which nothing was downloaded, and a folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def download(folder: Path, name: str, weights: bool = True) -> Path:
    """What a download leaves in the hub's cache."""
    spec = MODELS[name]
    snapshot = folder / "hub" / f"models--{spec.source.replace('/', '--')}" / "snapshots" / str(spec.revision)
    tiny_llava.save_tiny(snapshot)
    if not weights:
        (snapshot / "model.safetensors").unlink()
    return snapshot


def test_every_family_has_a_name_and_models_of_the_registry() -> None:
    assert {name: family.standard for name, family in FAMILY_NAMES.items()} == STANDARD
    assert {name: family.embedded for name, family in FAMILY_NAMES.items() if family.embedded} == EMBEDDED
    for family in FAMILY_NAMES.values():
        assert MODELS[family.standard].kind == "hub"
        assert not family.embedded or MODELS[family.embedded].kind == "embedded"
        assert not family.embedded or MODELS[family.embedded].family == MODELS[family.standard].family
    assert not set(FAMILY_NAMES) & set(MODELS)


@pytest.mark.parametrize("family", EMBEDDED)
def test_without_the_checkpoint_the_embedded_sibling_is_taken_and_said(family: str) -> None:
    chosen = choose_model(family)
    assert (chosen.name, chosen.label) == (EMBEDDED[family], f"{EMBEDDED[family]} (for {family})")
    assert f"{STANDARD[family]} is not on this machine" in chosen.note
    assert f"'fitprune download {STANDARD[family]}'" in chosen.note
    assert ("python -m harness.models.llava_hr FOLDER llava-hr-7b" in chosen.note) == (family == "llava-hr")
    assert "\n" not in chosen.note


@pytest.mark.parametrize("family", sorted(set(STANDARD) - set(EMBEDDED)))
def test_with_neither_it_is_refused_with_what_to_download(family: str) -> None:
    with pytest.raises(FitPruneError, match=f"'{family}' names a family .*'fitprune download {STANDARD[family]}'") as said:
        choose_model(family)
    assert "\n" not in str(said.value)
    assert choose_model(family, weights=False).name == STANDARD[family]


def test_the_downloaded_checkpoint_is_taken(nowhere: Path) -> None:
    download(nowhere, "llava-1.5-7b")
    chosen = choose_model("llava-1.5")
    assert chosen.name == "llava-1.5-7b"
    assert chosen.note == (
        "llava-1.5: llava-1.5-7b is taken, which is on this machine; "
        "the small one that ships with the package: --model llava-tiny"
    )
    with pytest.warns(UserWarning, match="llava-1.5-7b is taken"):
        loaded = load_model("llava-1.5", device="cpu")
    assert (loaded.name, loaded.revision) == ("llava-1.5-7b", MODELS["llava-1.5-7b"].revision)


@pytest.mark.parametrize("family", sorted(set(STANDARD) - {"llava-hr"}))
def test_so_it_is_of_every_family(nowhere: Path, family: str) -> None:
    snapshot = download(nowhere, STANDARD[family])
    chosen = choose_model(family)
    assert (chosen.name, chosen.label) == (STANDARD[family], f"{STANDARD[family]} (for {family})")
    assert chosen.note.startswith(f"{family}: {STANDARD[family]} is taken, which is on this machine")
    shutil.rmtree(snapshot)
    if family in EMBEDDED:
        assert choose_model(family).name == EMBEDDED[family]


def test_a_configuration_alone_is_no_checkpoint(nowhere: Path) -> None:
    download(nowhere, "llava-1.5-7b", weights=False)
    assert choose_model("llava-1.5").name == "llava-tiny"


def test_a_converted_checkpoint_is_found_where_the_conversion_writes_it(nowhere: Path) -> None:
    tiny_llava.save_tiny(nowhere / "llava-hr-7b")
    chosen = choose_model("llava-hr")
    assert chosen.name == "./llava-hr-7b"
    assert find_model(chosen.name).kind == "folder"
    shutil.rmtree(nowhere / "llava-hr-7b")
    assert choose_model("llava-hr").name == "llava-hr-tiny"


def test_other_names_stand_for_themselves(nowhere: Path) -> None:
    for name in ("llava-hr-tiny", "llava-1.5-7b", "owner/name", "./folder", "nonsense"):
        assert choose_model(name) == ChosenModel(name, name)


def test_load_model_takes_one_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="^llava-hr: llava-hr-tiny is taken") as warned:
        loaded = load_model("llava-hr", device="cpu")
    assert loaded.name == loaded.spec.name == "llava-hr-tiny"
    assert warned[0].filename == __file__
    assert type(load_processor_of("llava-hr")) is type(loaded.processor)


def test_commands_say_which_was_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flops", "--model", "llava-hr"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("llava-hr-tiny (for llava-hr): 144 visual")
    assert printed.err.startswith("llava-hr: llava-hr-tiny is taken, ")
    assert main(["flops", "--model", "qwen2.5-vl"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("qwen2.5-vl-7b (for qwen2.5-vl): ")
    assert printed.err == "qwen2.5-vl: qwen2.5-vl-7b is taken, by its configuration alone\n"
    assert main(["gallery", "--model", "internvl3"]) == 2
    assert capsys.readouterr().err.startswith("error: 'internvl3' names a family")


def test_the_list_of_models_says_what_families_names_stand_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("llava-hr: llava-hr-tiny is taken, ") for line in lines)
    assert any(line.startswith("qwen2.5-vl: nothing here; ") for line in lines)


def test_a_download_by_the_familys_name_is_the_standard_checkpoints(monkeypatch, capsys) -> None:
    monkeypatch.setattr("harness.commands.download.download", lambda spec: Path(spec.name))
    assert main(["download", "llava-hr"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "llava-hr-7b"


def test_a_latency_is_of_the_model_that_was_taken(monkeypatch, capsys) -> None:
    asked = {}

    def take(what, command, keep):
        asked.update(model=what.model, command=command)
        return {"rows": [], "cannot": []}

    monkeypatch.setattr("harness.latency.run.take", take)
    monkeypatch.setattr("harness.latency.rows.markdown", lambda record: "")
    assert main(["latency", "--model", "llava-hr"]) == 0
    assert asked["model"] == "llava-hr-tiny"
    assert "--model llava-hr-tiny" in asked["command"]
    assert main(["latency", "--model", "internvl3", "--weights", "random"]) == 0
    assert asked["model"] == "internvl3-1b"


def test_a_fit_says_it_on_the_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    provider.check("llava-1.5", "mini", None)
    loaded = provider.load("llava-1.5", "cpu")
    assert capsys.readouterr().err.startswith("llava-1.5: llava-tiny is taken")
    assert provider.origin(loaded, "mini")["model"] == "llava-tiny"


def test_lmms_evals_model_takes_one(capsys: pytest.CaptureFixture[str]) -> None:
    from harness.answering.lmms_model import FitPruneLMM

    made = FitPruneLMM.create_from_arg_string("pretrained=llava-1.5,data=hub,device=cpu")
    assert made.loaded.name == "llava-tiny"
    assert "llava-1.5: llava-tiny is taken" in capsys.readouterr().err
