"""The shipped model: loads with plain `from_pretrained`, answers, and is what its card says."""

import hashlib
import math
import re

import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from harness.embedded import MODELS, evaluate
from harness.embedded.questions import KINDS
from harness.embedded.tokenizer import build

FOLDER = MODELS["llava-tiny"]
SCENES = 20


@pytest.fixture(scope="module")
def model():
    return LlavaForConditionalGeneration.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def card() -> dict[str, list[float]]:
    """Kind → questions, exact match, most frequent answer, half dropped."""
    rows = re.findall(r"^\| ([^|]+?) +\|((?: +[\d.]+ \|)+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    return {kind: [float(cell) for cell in cells.split("|") if cell.strip()] for kind, cells in rows}


@pytest.fixture(scope="module")
def samples():
    return evaluate.held_out(SCENES)


@pytest.fixture(scope="module")
def answers(model, processor, samples):
    return evaluate.generated(model, processor, samples)


def test_it_is_a_stock_llava_in_float32(model):
    assert type(model) is LlavaForConditionalGeneration
    assert model.dtype == torch.float32
    assert model.config.text_config.num_hidden_layers >= 8
    assert model.config.image_seq_length >= 144
    assert model.config.vision_feature_layer == -2
    assert model.config.vision_feature_select_strategy == "default"
    assert model.generation_config.eos_token_id == model.config.text_config.eos_token_id
    assert model.generation_config.pad_token_id is not None


def test_its_files_are_small_and_hold_no_pickle():
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) <= 12e6
    assert {file.suffix for file in files} <= {".json", ".jinja", ".md", ".safetensors"}


def test_its_tokenizer_is_the_one_that_is_built():
    loaded, built = AutoTokenizer.from_pretrained(FOLDER), build()
    assert loaded.get_vocab() == built.get_vocab()
    text = 'Is the word "fox" in the image?\nA. red\nB. 1234'
    assert loaded(text)["input_ids"] == built(text)["input_ids"]
    assert loaded.padding_side == "left"
    ids = loaded(" top left")["input_ids"]
    assert loaded.decode(ids, skip_special_tokens=True) == "top left"


def test_it_answers_held_out_questions(samples, answers):
    right = [answer == sample.question.answer for answer, sample in zip(answers, samples, strict=True)]
    assert len(right) >= 240
    assert sum(right) / len(right) > 0.85


def test_generating_and_comparing_next_tokens_agree(model, processor, samples, answers):
    chosen = range(0, len(samples), 4)
    right = evaluate.right_with_dropped(model, processor, [samples[index] for index in chosen], dropped=0.0)
    assert right == [answers[index] == samples[index].question.answer for index in chosen]


def test_dropping_visual_tokens_hurts(model, processor, samples, answers):
    half = evaluate.right_with_dropped(model, processor, samples, dropped=0.5)
    whole = [answer == sample.question.answer for answer, sample in zip(answers, samples, strict=True)]
    assert sum(whole) - sum(half) > 0.04 * len(samples)
    nearly_all = evaluate.right_with_dropped(model, processor, samples[::4], dropped=0.95)
    assert sum(nearly_all) / len(nearly_all) < sum(half) / len(half)


def test_the_card_is_of_these_weights_and_above_the_bars(card):
    digest = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (FOLDER / "README.md").read_text()
    assert list(card) == [*KINDS, "all"]
    rows = [evaluate.Accuracy(kind, int(count), *points) for kind, (count, *points) in card.items()]
    assert evaluate.missed_bars(rows) == []
    assert rows[-1].questions == sum(row.questions for row in rows[:-1]) >= 5000
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
