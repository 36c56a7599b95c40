"""Every registered model, as a small random checkpoint of its classes in the hub's layout: load, answer, prune, count, free."""

import gc
import json
import weakref

import pytest
import torch
from transformers import AutoModelForImageTextToText

import tests.reference.families  # noqa: F401 - registers the layouts of tiled and rotated prompts
from fitprune import FitPrune
from harness.cost.flops import count
from harness.models.loading import load_model
from harness.models.prompting import encode
from harness.models.registry import MODELS
from harness.models.shipped import read_config, transformers_config
from tests.reference.decoder import fitprune
from tests.support import families
from tests.support.flop_checkers import TOLERANCE, torch_flops
from tests.support.models import kept, new_tokens
from tests.support.tiny_llava import save_tiny

pytestmark = pytest.mark.releases
NEW = 4
# Question and image size (width, height); the sizes give tiled models different numbers of visual tokens.
SAMPLES = [("w1 w2 w3 what color ?", (40, 30)), ("w4 is", (22, 44)), ("w5 w6 red green w7 w8 ?", (30, 30))]


def save_llava(name, folder):
    save_tiny(folder)


def save_family(name, folder):
    decoder = read_config(MODELS[name])["text_config"]["model_type"]
    families.save(MODELS[name].family, folder, decoder=decoder if decoder in families.DECODERS else None)


def save_llava_hr(name, folder):
    from harness.models.llava_hr import convert_checkpoint
    from tests.support import tiny_llava_hr as tiny

    source = tiny.save(folder.with_name("authors"), tiny.weights())
    convert_checkpoint(source, folder, clip_config=tiny.CLIP, convnext_config=tiny.CONVNEXT)


SAVE = dict.fromkeys(families.FAMILIES, save_family) | {"llava": save_llava, "llava_hr": save_llava_hr}


# By default one of each family, whose decoder is its first model's; not of those with tiles, whose prompts are long:
# tests/fitprune/engine/test_families_exact.py and tests/harness/models/test_views.py ask of these.
TILED = ("llava_next", "llava_onevision")
FIRST = {spec.family: name for name, spec in reversed(MODELS.items()) if spec.kind != "embedded" and not spec.convert}
FIRST = {family: name for family, name in FIRST.items() if family not in TILED}
NAMES = [name if name in FIRST.values() else pytest.param(name, marks=pytest.mark.exhaustive) for name in MODELS]


def on_disk(name, tmp_path, monkeypatch):
    """What to load the model by, once its checkpoint is where its users have it."""
    spec = MODELS[name]
    if spec.kind == "embedded":
        return name
    if spec.convert:
        SAVE[spec.family](name, tmp_path / "converted")
        return str(tmp_path / "converted")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    SAVE[spec.family](name, tmp_path / f"models--{spec.source.replace('/', '--')}" / "snapshots" / str(spec.revision))
    return name


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_loaded_answers_is_pruned_counted_and_freed(name, tmp_path, monkeypatch):
    loaded = load_model(on_disk(name, tmp_path, monkeypatch), device="cpu")
    model, spec = loaded.model, MODELS[name]
    # The classes are those that the published configuration asks for, tower and decoder too.
    published = transformers_config(spec)
    assert type(model) is AutoModelForImageTextToText._model_mapping[type(published)]
    for part in ("text_config", "vision_config"):
        assert getattr(model.config, part).model_type == getattr(published, part).model_type
    assert loaded.revision == spec.revision or spec.kind == "embedded" or spec.convert
    model.generation_config.eos_token_id = None

    pictures = [[families.image(*size, seed=place)] for place, (_, size) in enumerate(SAMPLES)]
    questions = [question for question, _ in SAMPLES]
    single = [encode(loaded, [question], [own]) for question, own in zip(questions, pictures, strict=True)]
    batch = encode(loaded, questions, pictures)

    none = [0] * model.config.get_text_config().num_hidden_layers
    answers = new_tokens(model, batch, NEW).tolist()
    for row, sample in enumerate(single):
        assert fitprune(model, sample, none, NEW).tokens == new_tokens(model, sample, NEW)[0].tolist() == answers[row]

    pruner = FitPrune.for_reduction(model.config, 0.5, model=model, batches=single)
    recipe = pruner.recipe
    assert recipe.reduction >= 0.5  # the budget pays for scoring too
    with pruner(model) as trace:
        together = new_tokens(model, batch, NEW)
        rows = [kept(trace, row) for row in range(len(single))]
        totals = trace.visual_tokens.tolist()
    for row, sample in enumerate(single):
        expected = fitprune(model, sample, recipe.schedule(totals[row]), NEW)
        with pruner(model) as trace:
            alone = new_tokens(model, sample, NEW)
        assert rows[row] == kept(trace) == expected.kept
        assert len(expected.kept[-1]) < totals[row]
        assert together[row].tolist() == alone[0].tolist() == expected.tokens
    with torch.no_grad(), pruner(model) as trace:
        model(**sample)
    for method, measured in ((None, None), (pruner, trace)):
        cost = count(model, sample, trace=measured)
        with method(model) if method else torch.no_grad():
            seen = torch_flops(model, **sample).get_total_flops()
        assert cost.total == pytest.approx(seen, rel=TOLERANCE)
    assert cost.scoring > 0
    assert cost.total - cost.scoring < count(model, sample).total

    held = [weakref.ref(model), weakref.ref(next(model.parameters())), weakref.ref(loaded.processor)]
    del loaded, model, trace, method, measured, pruner
    gc.collect()
    assert [reference() for reference in held] == [None, None, None]


def test_what_a_checkpoint_says_of_itself_is_what_is_loaded(tmp_path):
    """The family comes from the checkpoint where a folder is loaded, not from what the folder is called."""
    families.save("internvl", tmp_path / "llava-1.5-7b")
    loaded = load_model(str(tmp_path / "llava-1.5-7b"), device="cpu")
    assert loaded.model.config.model_type == "internvl"
    assert json.loads((tmp_path / "llava-1.5-7b" / "config.json").read_text())["model_type"] == "internvl"
