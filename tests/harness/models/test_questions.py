"""The question that a method reads in a prompt is the one that was asked, on every embedded model."""

import pytest
import torch

from fitprune.models.reader import reader_of
from harness.models.chat import question_reader
from harness.models.loading import load_model
from harness.models.prompting import encode
from tests.support import families

ASKED = [
    "How many squares are in the image?\nAnswer the question using a single word or phrase.",
    "Is there a red circle in the image?",
]


@pytest.mark.parametrize("name", ["llava-tiny", "llava-next-tiny", "llava-hr-tiny"])
def test_questions_are_read_back(name):
    loaded = load_model(name, "cpu")
    inputs = encode(loaded, ASKED, [[], []])
    reader = reader_of(loaded.model.model)
    assert reader.questions(inputs["input_ids"], inputs["attention_mask"].bool()) == ASKED


@pytest.mark.parametrize("family", families.FAMILIES)
def test_in_every_familys_template(family):
    processor = families.processor(family)
    sample = families.inputs(processor, [["w1 w2", (40, 20), "w3"], ["w4"]])
    text = sample["attention_mask"].bool() & (sample["input_ids"] != processor.image_token_id)
    assert question_reader(processor).questions(sample["input_ids"], text) == ["w1 w2 w3", "w4"]


def test_what_stands_in_no_template_is_read_whole():
    loaded = load_model("llava-tiny", "cpu")
    ids = torch.tensor([loaded.processor.tokenizer("Is there a red circle in the image?")["input_ids"]])
    assert reader_of(loaded.model.model).questions(ids, torch.ones_like(ids, dtype=torch.bool)) == [
        "Is there a red circle in the image?"
    ]
