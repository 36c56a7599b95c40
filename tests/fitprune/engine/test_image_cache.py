"""Images of the same inputs are encoded once, and nothing else changes."""

import pytest
import torch

from baselines.controls.random_pruning import Random
from fitprune.engine.image_cache import remembering_images
from tests.support import families
from tests.support.models import batch, build, new_tokens, prompt
from tests.support.pruners import Coarse, Looking

pytestmark = pytest.mark.releases


@pytest.fixture
def encoded():
    """Counts how often a model's tower runs."""
    return []


def counting(model, encoded):
    model.model.vision_tower.register_forward_hook(lambda *_: encoded.append(1))
    return model


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_once_for_all_pruners_with_the_same_answers(family, encoded):
    if family == "llava":
        model = counting(build(), encoded)
        inputs = batch([prompt(model, [3, "image", 5]), prompt(model, ["image", 4], seed=1)])
    else:
        model = counting(families.build(family), encoded)
        inputs = families.inputs(families.processor(family), [["w1", (30, 20), "w3"], ["w1", (40, 40), "w2"]])
    seen = []

    def look(tokens):
        vision = tokens.vision
        seen.append((vision.cls_attention(-1), vision.of_patches(vision.features)))

    def answers():
        given = [new_tokens(model, inputs, 3).tolist()]
        for pruner in (Random(0.5), Looking(look), Looking(look)):
            with pruner(model):
                given.append(new_tokens(model, inputs, 3).tolist())
        return given

    with torch.no_grad():
        expected = answers()
        assert len(encoded) == 4
        encoded.clear()
        with remembering_images(model):
            assert answers() == expected
        # Once without, and once for what methods see that look into the tower.
        assert len(encoded) == 2
    (first, own), *others = seen
    for cls_attention, features in others:
        assert torch.equal(cls_attention, first)
        assert torch.equal(features, own)
    assert "get_image_features" not in vars(model.model)


def test_other_pixels_and_changed_towers_are_encoded_anew(encoded):
    model = counting(build(), encoded)
    one, other = prompt(model, [3, "image", 5]), prompt(model, [3, "image", 5], seed=1)
    with torch.no_grad(), remembering_images(model):
        first = model(**one).logits
        assert not torch.equal(model(**other).logits, first)
        assert torch.equal(model(**one).logits, first)
        assert len(encoded) == 2
        one["pixel_values"] += 1
        assert not torch.equal(model(**one).logits, first)
        assert len(encoded) == 3
        with Coarse()(model):
            model(**one)
            model(**one)
        assert len(encoded) == 5


def test_the_oldest_go_where_there_is_no_room(encoded):
    model = counting(build(), encoded)
    prompts = [prompt(model, [3, "image", 5], seed=seed) for seed in range(3)]
    size = prompts[0]["pixel_values"].nbytes
    with torch.no_grad(), remembering_images(model, limit=4 * size):
        for inputs in (prompts[0], prompts[0], prompts[1], prompts[2], prompts[2], prompts[0]):
            model(**inputs)
    assert len(encoded) == 4
