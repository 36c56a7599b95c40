"""The library's ten lines on the model that ships: the same tokens kept on every release of the dependencies."""

import io

import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from fitprune import FitPrune, Recipe, fit
from harness.models import load_model
from harness.tasks.calibration import calibration_samples
from tests.reference.decoder import fitprune
from tests.support.releases import cache_of, with_cache

pytestmark = [pytest.mark.releases, pytest.mark.releases_short]

# Made with requirements/constraints.txt; `test_the_reference_keeps_them_too` shows that they are the rule's, not one release's.
DROP = [24, 48, 6, 4, 25, 3, 6, 0]
KEPT = [1, 8, 9, 12, 20, 21, 50, 51, 62, 63, 72, 73, 74, 75, 109, 110, 112, 113, 121, 122, 124, 125,
        132, 133, 134, 135, 136, 137]  # fmt: skip
ANSWER = [71, 36, 2]


@pytest.fixture(scope="module")
def loaded():
    return load_model("llava-tiny", device="cpu")


@pytest.fixture(scope="module")
def samples(loaded):
    """Eight pictures and prompts to fit on, and one more of each to ask about."""
    pairs = calibration_samples("mini", 9)
    images = [Image.open(io.BytesIO(png)).convert("RGB") for png, _ in pairs]
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for _, text in pairs]
    return images, [loaded.processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]


@pytest.fixture(scope="module")
def inputs(loaded, samples):
    images, prompts = samples
    return loaded.processor(images=images[-1], text=prompts[-1], return_tensors="pt")


def test_the_ten_lines_keep_the_same_tokens(loaded, samples, inputs, tmp_path):
    model, processor = loaded.model, loaded.processor
    images, prompts = (part[:-1] for part in samples)
    batches = [processor(images=images, text=prompts, padding=True, return_tensors="pt")]
    recipe = fit(model, batches, reduction=0.6)
    recipe.save(tmp_path / "recipe.json")
    with FitPrune(Recipe.load(tmp_path / "recipe.json"))(model) as trace:
        sequences = model.generate(**inputs, max_new_tokens=8)
    assert recipe.drop == DROP
    assert trace.kept[7].tolist() == [KEPT]
    assert sequences[0, inputs["input_ids"].shape[1] :].tolist() == ANSWER


def test_the_reference_keeps_them_too(loaded, inputs):
    expected = fitprune(loaded.model, inputs, DROP, len(ANSWER))
    # No release's rounding can change what goes or what is said.
    assert expected.closest > 1e-4
    assert expected.kept[7] == KEPT
    assert expected.tokens == ANSWER


@torch.no_grad()
@pytest.mark.parametrize("name", ["the release's", "past_key_values"])
def test_a_cache_is_found_under_each_name_that_the_release_takes(loaded, inputs, name):
    """5.24 still takes the name that earlier releases have."""
    model, cache = loaded.model, DynamicCache(config=loaded.model.config)
    handed = with_cache(model, cache) if name == "the release's" else {name: cache}
    with FitPrune(Recipe(DROP, 144))(model) as trace:
        output = model(**inputs, **handed)
        text = int(trace.text_tokens)
        assert cache_of(output) is cache
        token = output.logits[:, -1:].argmax(-1)
        after = model(input_ids=token, **handed).logits[0, -1].argmax()
    assert [token.item(), after.item()] == ANSWER[:2]
    lengths = [cache.get_seq_length(layer) for layer in range(len(DROP))]
    assert lengths == [text + 144 - sum(DROP[:layer]) + 1 for layer in range(len(DROP))]
