"""The question that a method reads in a prompt is the one that was asked; CLIP's text tower is the one that an entry names."""

import dataclasses

import pytest
import torch

from baselines.before_decoder.cdpruner import CDPruner
from fitprune import FitPruneError
from fitprune.models.clip_text import ClipText
from fitprune.models.reader import reader_of
from harness.answering.evaluate import sample_inputs
from harness.models.chat import question_reader, text_tower
from harness.models.loading import load_model
from harness.models.prompting import encode
from harness.models.registry import find_model
from tests.reference.clip import cosine, patches_of, text_of
from tests.support import families
from tests.support.readers import LONGEST, clip

ASKED = [
    "How many squares are in the image?\nAnswer the question using a single word or phrase.",
    "Is there a red circle in the image?",
]


@pytest.mark.parametrize("name", ["llava-tiny", "llava-deep-tiny", "llava-next-tiny", "llava-hr-tiny"])
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


def test_a_template_that_takes_no_prompt_without_an_image_hides_no_word(monkeypatch):
    processor = families.processor("llava_next")
    monkeypatch.setattr(type(processor), "apply_chat_template", lambda *given, **options: 1 / 0)
    assert (question_reader(processor).before, question_reader(processor).after) == ("", "")


def test_what_stands_in_no_template_is_read_whole():
    loaded = load_model("llava-tiny", "cpu")
    ids = torch.tensor([loaded.processor.tokenizer("Is there a red circle in the image?")["input_ids"]])
    assert reader_of(loaded.model.model).questions(ids, torch.ones_like(ids, dtype=torch.bool)) == [
        "Is there a red circle in the image?"
    ]


def test_reading_changes_no_setting_of_the_tokenizer_that_prepares_prompts():
    """Padding is one, from a call to its end: a thread that prepares the next batch would give rows of unequal lengths."""
    loaded = load_model("llava-tiny", "cpu")
    reader, tokenizer = reader_of(loaded.model.model), loaded.processor.tokenizer
    ids = torch.tensor(tokenizer(ASKED, padding=True)["input_ids"])
    padding = dict(tokenizer.backend_tokenizer.padding)
    assert reader.embeddings(loaded.model, [["circle"]])[0].shape[1] == loaded.config.text_config.hidden_size
    reader.questions(ids, ids > 0)
    assert tokenizer.backend_tokenizer.padding == padding


def test_a_clip_model_in_the_hubs_format_is_read(tmp_path):
    """Its text tower and projections; texts beyond its limit keep their end token."""
    model, tokenizer = clip(16)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = dataclasses.replace(find_model("llava-1.5-7b"), text_tower=(str(tmp_path), "main"))
    read = text_tower(spec, torch.float32, "cpu")()
    questions = ["w1 w2", " ".join(f"t{word}" for word in range(30))]
    texts, macs = read.texts(questions)
    shortened = [questions[0], " ".join(questions[1].split()[: LONGEST - 2])]
    for text, question in zip(texts, shortened, strict=True):
        assert cosine(text.double(), text_of(model, tokenizer, question)) == pytest.approx(1, abs=1e-6)
    # Of 4 and 12 tokens: two layers, 16 wide, 24 in between, and the projection into 8.
    assert macs == 2 * (16 * (4 * 16**2 + 2 * 16 * 24) + 2 * 16 * (4**2 + 12**2)) + 2 * 16 * 8
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(read.patches(features).double(), patches_of(model, features), atol=1e-5)
    assert read.width == 16


def test_a_clip_model_that_is_not_there_is_named_with_what_to_download(tmp_path, monkeypatch):
    spec = find_model("llava-next-13b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FitPruneError, match=r"'llava-next-13b' is not on this machine.*hf download openai/clip-vit-large"
    ) as error:
        text_tower(spec, torch.float32, "cpu")()
    assert "\n" not in str(error.value)
    with pytest.raises(FitPruneError, match=r"no CLIP model can be read here"):
        ClipText.from_folder(tmp_path, torch.float32, "cpu")
    assert text_tower(find_model("llava-tiny"), torch.float32, "cpu") is None


def test_the_deep_embedded_model_brings_the_text_tower_that_its_vision_tower_was_trained_with():
    """So that methods in CLIP's space run on a model that ships."""
    loaded = load_model("llava-deep-tiny", "cpu")
    clip = text_tower(find_model("llava-deep-tiny"), torch.float32, "cpu")()
    assert clip.width == loaded.model.config.vision_config.hidden_size
    (inputs,) = list(sample_inputs(loaded, "gqa", limit=2, batch_size=2))
    with torch.inference_mode(), CDPruner(36, visual_tokens=144)(loaded.model) as trace:
        loaded.model(**inputs)
    assert trace.visual_out[0].tolist() == [36, 36]
