"""The shipped models: each loads with plain `from_pretrained`, answers, and is what its card says."""

import hashlib
import math
import re

import pytest
import torch
from transformers import AutoConfig, AutoProcessor, AutoTokenizer

from harness.models.registry import EMBEDDED
from harness.scenes.questions import KINDS
from training import evaluate
from training.families import FAMILIES
from training.plan import PLANS
from training.tokenizer import build

pytestmark = pytest.mark.releases
DEEP = ("llava-deep-tiny", "llava-deep-tiny-b", "llava-deep-tiny-c")
SCENES = {"llava-tiny": 6, **dict.fromkeys(DEEP, 4), "llava-next-tiny": 3, "llava-hr-tiny": 3}
QUESTIONS = {"llava-tiny": 5000, **dict.fromkeys(DEEP, 1600), "llava-next-tiny": 2000, "llava-hr-tiny": 2000}
"""The least that each card's figures rest on."""


@pytest.fixture(
    scope="module",
    params=[name if name == "llava-tiny" else pytest.param(name, marks=pytest.mark.exhaustive) for name in EMBEDDED],
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name):
    return EMBEDDED[name]


@pytest.fixture(scope="module")
def model(name, folder):
    return FAMILIES[PLANS[name].family].model_class.from_pretrained(folder)


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def card(folder) -> dict[str, list[float]]:
    """Kind → questions, exact match, most frequent answer, half dropped."""
    rows = re.findall(r"^\| ([^|]+?) +\|((?: +[\d.]+ \|)+)$", (folder / "README.md").read_text(), re.MULTILINE)
    found = {kind: [float(cell) for cell in cells.split("|") if cell.strip()] for kind, cells in rows}
    return {kind: cells for kind, cells in found.items() if kind in KINDS or kind == "all"}


@pytest.fixture(scope="module")
def samples(name):
    return evaluate.held_out(SCENES[name], canvases=PLANS[name].canvases)


@pytest.fixture(scope="module")
def answers(model, processor, samples):
    return evaluate.generated(model, processor, samples)


def test_it_is_of_its_family_in_float32(model, name):
    assert type(model) is FAMILIES[PLANS[name].family].model_class
    assert model.dtype == torch.float32
    assert model.config.text_config.num_hidden_layers >= 8
    assert model.config.image_seq_length >= 144
    assert model.generation_config.eos_token_id == model.config.text_config.eos_token_id
    assert model.generation_config.pad_token_id is not None


@pytest.mark.parametrize("stock", [name for name in EMBEDDED if PLANS[name].family != "llava-hr"])
def test_the_decoder_reads_patches_of_layer_minus_two(stock):
    config = AutoConfig.from_pretrained(EMBEDDED[stock])
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-2, "default")


def test_its_files_are_small_and_hold_no_pickle(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in files) <= 12e6
    assert {file.suffix for file in files} <= {".json", ".jinja", ".md", ".safetensors"}


def test_its_tokenizer_is_the_one_that_is_built(folder):
    loaded, built = AutoTokenizer.from_pretrained(folder), build()
    assert loaded.get_vocab() == built.get_vocab()
    text = 'Is the word "fox" in the image?\nA. red\nB. 1234'
    assert loaded(text)["input_ids"] == built(text)["input_ids"]
    assert loaded.padding_side == "left"
    ids = loaded(" top left")["input_ids"]
    assert loaded.decode(ids, skip_special_tokens=True) == "top left"


def test_it_answers_held_out_questions(samples, answers, name):
    right = [answer == sample.question.answer for answer, sample in zip(answers, samples, strict=True)]
    assert len(right) >= 12 * SCENES[name]
    assert sum(right) / len(right) > 0.85


def test_generating_and_comparing_next_tokens_agree(model, processor, samples, answers):
    chosen = range(0, len(samples), 4)
    right = evaluate.right_with_dropped(model, processor, [samples[index] for index in chosen], dropped=0.0)
    assert right == [answers[index] == samples[index].question.answer for index in chosen]


@pytest.mark.exhaustive
def test_dropping_visual_tokens_hurts(model, processor, samples, answers):
    half = evaluate.right_with_dropped(model, processor, samples, dropped=0.5)
    whole = [answer == sample.question.answer for answer, sample in zip(answers, samples, strict=True)]
    assert sum(whole) - sum(half) > 0.04 * len(samples)
    nearly_all = evaluate.right_with_dropped(model, processor, samples[::4], dropped=0.95)
    assert sum(nearly_all) / len(nearly_all) < sum(half) / len(half)


def test_the_card_is_of_these_weights_and_above_the_bars(card, folder, name):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()
    assert list(card) == [*KINDS, "all"]
    rows = [evaluate.Accuracy(kind, int(count), *points) for kind, (count, *points) in card.items()]
    assert evaluate.missed_bars(rows) == []
    assert rows[-1].questions == sum(row.questions for row in rows[:-1]) >= QUESTIONS[name]
    for name in ("exact", "majority", "half"):
        mean = sum(getattr(row, name) * row.questions for row in rows[:-1]) / rows[-1].questions
        assert getattr(rows[-1], name) == pytest.approx(mean, abs=0.1)


def test_the_card_gives_what_is_measured(card, samples, answers):
    right = [answer == sample.question.answer for answer, sample in zip(answers, samples, strict=True)]
    said = card["all"][1] / 100
    assert sum(right) / len(right) == pytest.approx(said, abs=4 * math.sqrt(said * (1 - said) / len(right)))


def test_missed_bars_are_named():
    good = evaluate.Accuracy("color", 100, 95.0, 20.0, 60.0)
    weak = evaluate.Accuracy("count", 100, 74.0, 60.0, 60.0)
    missed = evaluate.missed_bars([good, weak, evaluate.Accuracy("all", 200, 84.5, 40.0, 80.0)])
    assert len(missed) == 4
    assert sum("count" in words for words in missed) == 2
