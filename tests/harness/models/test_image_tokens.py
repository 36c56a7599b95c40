"""Image tokens on which parts of a checkpoint disagree, and prompts that are cut off: one line that names the cause."""

import json

import pytest

from baselines import Dense, Random
from fitprune import FitPruneError
from harness.models.loading import load_model
from tests.support import families
from tests.support.evaluating import evaluate_cell
from tests.support.tiny_llava import save_tiny, write_suites

FAMILIES = ("llava", *families.FAMILIES)


def saved(family, folder):
    if family == "llava":
        return save_tiny(folder)
    families.save(family, folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_that_disagree_are_named_before_any_work(tmp_path, family):
    folder = saved(family, tmp_path / "m")
    load_model(str(folder), "cpu")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    key = "image_token_id" if "image_token_id" in config else "image_token_index"
    right = config[key]
    path.write_text(json.dumps(config | {key: right - 1}))
    with pytest.raises(
        FitPruneError, match=rf"its config.json has {right - 1} for image tokens, its tokenizer {right} \("
    ) as error:
        load_model(str(folder), "cpu")
    assert "\n" not in str(error.value)


def test_prompts_that_are_cut_off_are_named(tmp_path, monkeypatch):
    loaded = load_model(str(save_tiny(tmp_path / "m")), "cpu")
    plain = loaded.model.generate

    def cut(**inputs):
        inputs["input_ids"], inputs["attention_mask"] = inputs["input_ids"][:, 9:], inputs["attention_mask"][:, 9:]
        return plain(**inputs)

    monkeypatch.setattr(loaded.model, "generate", cut)
    write_suites(tmp_path / "d")
    for pruner in (None, Dense(), Random(ratio=0.5)):
        with pytest.raises(FitPruneError, match=r"^the prompt has 20 image tokens, its 2 images have 32 features; ") as error:
            evaluate_cell(loaded, pruner, "pope", data=str(tmp_path / "d"), batch_size=2)
        assert "\n" not in str(error.value)
