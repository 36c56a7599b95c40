"""Images and prompts as the authors prepare them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor
from transformers.tokenization_utils_base import AddedToken

from fitprune.errors import FitPruneError
from harness.models.llava_hr import LlavaHrImageProcessor, LlavaHrProcessor
from tests.reference.llava_hr import prompt_ids
from tests.support.tiny_llava_hr import VOCABULARY, picture, tokenizer

pytestmark = pytest.mark.releases
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions."
)
TOKENS = 9


def prepared(image, side):
    """The authors' steps, on a PIL image: (3, side, side)."""
    image = image.convert("RGB")
    width, height = image.size
    longest = max(width, height)
    square = Image.new("RGB", (longest, longest), (122, 116, 104))
    square.paste(image, ((longest - width) // 2, (longest - height) // 2))
    pixels = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float64) / 255
    return torch.tensor((pixels - MEAN) / STD).permute(2, 0, 1)


@pytest.fixture
def processor():
    words = tokenizer()
    words.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    words.pad_token, words.padding_side = "<unk>", "left"
    images = LlavaHrImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    return LlavaHrProcessor(images, words, image_seq_length=TOKENS)


@pytest.mark.parametrize(
    ("width", "height", "mode"),
    [(48, 48, "RGB"), (100, 37, "RGB"), (31, 64, "RGB"), (20, 21, "RGB"), (50, 40, "RGBA"), (50, 40, "L"), (9, 80, "LA")],
)
def test_images_are_prepared_as_the_authors_do(processor, width, height, mode):
    image = picture(width, height, mode)
    found = processor.image_processor(image, return_tensors="pt")["pixel_values"]
    assert found.shape == (1, 3, 48, 48)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0].double(), prepared(image, 48), rtol=0, atol=2e-6)


def test_transparency_is_dropped_and_palettes_are_read(processor):
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    found = processor.image_processor(clear, return_tensors="pt")["pixel_values"]
    expected = (torch.tensor([10, 20, 30]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(found[0, :, 0, 0], expected, rtol=0, atol=2e-6)
    palette = picture(30, 20).convert("P")
    found = processor.image_processor(palette, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found[0].double(), prepared(palette, 48), rtol=0, atol=2e-6)


def test_arrays_are_images_too(processor):
    image = picture(40, 25)
    arrays = processor.image_processor(np.asarray(image), return_tensors="pt")["pixel_values"]
    assert torch.equal(arrays, processor.image_processor(image, return_tensors="pt")["pixel_values"])


def test_the_full_size_is_1024():
    found = LlavaHrImageProcessor()(picture(120, 90), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found[0].double(), prepared(picture(120, 90), 1024), rtol=0, atol=2e-6)


def test_the_texts_around_an_image_are_tokenised_apart(processor):
    texts = ["USER: <image>\nWhat is it? ASSISTANT:", "<image>tail", "no image here", "a<image> b <image>"]
    images = [picture(10 + size, 20) for size in range(4)]
    found = processor(images=images, text=texts, padding=False)
    for ids, text in zip(found["input_ids"], texts, strict=True):
        assert ids == prompt_ids(processor.tokenizer, text, VOCABULARY, TOKENS)
        assert ids.count(processor.tokenizer.bos_token_id) == 1
    assert found["input_ids"][0].count(VOCABULARY) == TOKENS
    newline = processor.tokenizer.convert_tokens_to_ids(["▁", "<0x0A>"])
    after = found["input_ids"][0].index(VOCABULARY) + TOKENS
    assert found["input_ids"][0][after : after + 2] == newline


def test_batches_are_padded_on_the_left(processor):
    texts = ["USER: <image>\nWhat? ASSISTANT:", "<image>\nA longer question, is it not? ASSISTANT:", "text alone"]
    found = processor(images=[picture(30, 20), picture(20, 30)], text=texts, padding=True, return_tensors="pt")
    assert found["pixel_values"].shape == (2, 3, 48, 48)
    for ids, mask, text in zip(found["input_ids"], found["attention_mask"], texts, strict=True):
        alone = prompt_ids(processor.tokenizer, text, VOCABULARY, TOKENS)
        padding = len(ids) - len(alone)
        assert ids.tolist() == [processor.tokenizer.pad_token_id] * padding + alone
        assert mask.tolist() == [0] * padding + [1] * len(alone)


def test_special_tokens_can_be_left_out(processor):
    ids = processor(images=picture(9, 9), text="a <image> b", add_special_tokens=False)["input_ids"][0]
    assert processor.tokenizer.bos_token_id not in ids
    assert ids.count(VOCABULARY) == TOKENS


def test_text_and_images_that_do_not_match_are_refused(processor):
    with pytest.raises(FitPruneError, match="the text has 1 <image>, but 2 images were given"):
        processor(images=[picture(9, 9), picture(9, 9)], text="<image> what?")
    with pytest.raises(FitPruneError, match="the text has 1 <image>, but 0 images were given"):
        processor(text="<image> what?")
    with pytest.raises(FitPruneError, match="does not truncate"):
        processor(text="what?", truncation=True, max_length=4)


def test_a_tokenizer_without_the_image_token_is_refused():
    with pytest.raises(FitPruneError, match="does not know the image token '<image>'"):
        LlavaHrProcessor(LlavaHrImageProcessor(), tokenizer())


def test_the_chat_template_is_the_authors_prompt(processor):
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    first = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(first, add_generation_prompt=True, tokenize=False)
    assert prompt == f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"
    more = [*first, {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]}, {"role": "user", "content": "Why?"}]
    prompt = processor.apply_chat_template(more, add_generation_prompt=True, tokenize=False)
    assert prompt == f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A cup.</s>USER: Why? ASSISTANT:"
    own = [{"role": "system", "content": "Be brief."}, *first]
    prompt = processor.apply_chat_template(own, add_generation_prompt=True, tokenize=False)
    assert prompt == "Be brief. USER: <image>\nWhat is it? ASSISTANT:"


def test_a_chat_can_be_tokenised_at_once(processor):
    image = picture(30, 20)
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
    found = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    text = f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"
    assert found["input_ids"][0].tolist() == prompt_ids(processor.tokenizer, text, VOCABULARY, TOKENS)
    assert found["pixel_values"].shape == (1, 3, 48, 48)


def test_what_was_saved_is_loaded(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(loaded) is LlavaHrProcessor
    assert type(loaded.image_processor) is type(AutoImageProcessor.from_pretrained(tmp_path)) is LlavaHrImageProcessor
    assert (loaded.image_seq_length, loaded.image_token_id) == (TOKENS, VOCABULARY)
    assert loaded.chat_template == processor.chat_template
    text, image = "USER: <image>\nWhat is it, then? ASSISTANT:", picture(30, 20)
    before = processor(images=image, text=text, return_tensors="pt")
    after = loaded(images=image, text=text, return_tensors="pt")
    assert set(before) == set(after) == {"input_ids", "attention_mask", "pixel_values"}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_answers_are_decoded(processor):
    ids = processor.tokenizer("is it")["input_ids"] + [processor.tokenizer.eos_token_id]
    assert processor.batch_decode([ids], skip_special_tokens=True) == ["is it"]
