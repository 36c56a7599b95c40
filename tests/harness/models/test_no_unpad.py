"""`NAME:no-unpad`: a LLaVA-NeXT with the features of its whole canvas and no newlines, as published tables count 2880."""

import pytest
import torch
from PIL import Image

from fitprune import FitPrune, FitPruneError, Recipe
from harness.latency.synthetic import random_model
from harness.models.facts import model_facts
from harness.models.families import FAMILIES
from harness.models.family_names import choose_model
from harness.models.loading import load_model, load_outline
from harness.models.prompting import encode
from harness.models.registry import find_model
from harness.models.shipped import read_config, transformers_config

pytestmark = pytest.mark.releases
NAME = "llava-next-tiny:no-unpad"


@pytest.fixture(scope="module")
def loaded():
    return load_model(NAME, device="cpu")


def picture(width, height):
    image = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", [image, image.rotate(90), image.rotate(180)])


def decoders_input(model, inputs):
    """The embeddings that the decoder gets at the image's places: (tokens, hidden size)."""
    caught = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, given, named: caught.append(named["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return caught[0][inputs["input_ids"] == model.config.image_token_id]


@pytest.mark.parametrize(("size", "grid"), [((250, 90), (1, 3)), ((40, 100), (3, 1)), ((96, 96), (1, 1))])
def test_features_are_the_authors_without_unpadding(loaded, size, grid):
    """LLaVA's packing for `mm_patch_merge_type="spatial"`, literally: the base view, then the tiles' patches row by row."""
    inputs = encode(loaded, ["what is this?"], [[picture(*size)]])
    model, (down, across) = loaded.model, grid
    (tiles,) = inputs["pixel_values"]
    assert len(tiles) == 1 + down * across
    with torch.no_grad():
        tower = model.model.vision_tower(tiles, output_hidden_states=True)
        features = model.model.multi_modal_projector(tower.hidden_states[model.config.vision_feature_layer][:, 1:])
    expected = list(features[0])
    for row in range(12 * down):
        for column in range(12 * across):
            tile = 1 + row // 12 * across + column // 12
            expected.append(features[tile, row % 12 * 12 + column % 12])
    found = decoders_input(model, inputs)
    assert found.shape[0] == 144 * (1 + down * across)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_a_pruner_counts_every_one_of_them(loaded):
    recipe = Recipe([100, 0, 201, 0, 0, 0, 0, 0], 576, scaling="counts")
    for size, counts in (((250, 90), [576, 476, 476, 275]), ((96, 96), [288, 238, 238, 138])):
        with torch.no_grad(), FitPrune(recipe)(loaded.model) as trace:
            loaded.model(**encode(loaded, ["what is this?"], [[picture(*size)]]))
        assert [int(trace.visual_tokens), *(layer.shape[1] for layer in trace.kept[:3])] == counts


def test_2880_on_every_canvas_of_four_tiles():
    """Published tables' number; a strip of two or three tiles has fewer."""
    spec = find_model("llava-next-7b:no-unpad")
    config = read_config(spec)
    for size in ((672, 672), (640, 480), (480, 640), (500, 375), (375, 500), (1200, 900)):
        view = FAMILIES["llava_next"].view(config, *size)
        assert (view.tokens, view.newlines, view.extra) == (2880, 0, {"image_sizes": [[672, 672]]})
    assert FAMILIES["llava_next"].view(config, 1000, 200).tokens == 576 * 4
    assert transformers_config(spec).image_unpad is False


@pytest.mark.parametrize("size", [(250, 90), (40, 100), (96, 96), (8, 6)])
def test_the_configuration_alone_says_what_the_processor_makes(loaded, size):
    view = FAMILIES["llava_next"].view(read_config(find_model(NAME)), *size)
    for held in (loaded, load_outline(NAME)):
        made = encode(held, ["what?"], [[picture(*size)]])
        assert int((made["input_ids"] == loaded.model.config.image_token_id).sum()) == view.tokens
        assert tuple(made["pixel_values"].shape) == view.pixels
        assert made["image_sizes"].tolist() == view.extra["image_sizes"]


def test_random_weights_run_so_too():
    made = random_model(find_model(NAME), "cpu", 2, None)
    assert made.model.image_newline is None


def test_it_is_another_model_to_a_key():
    plain, other = model_facts("llava-next-tiny", "cpu"), model_facts(NAME, "cpu")
    assert (plain.revision, plain.dtype) == (other.revision, other.dtype)
    assert plain.weights != other.weights
    assert (other.name, other.config.image_unpad) == (NAME, False)


def test_a_familys_name_takes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    chosen = choose_model("llava-next:no-unpad")
    assert chosen.label == "llava-next-tiny:no-unpad (for llava-next:no-unpad)"
    assert "llava-next-7b is not on this machine" in chosen.note


@pytest.mark.parametrize("name", ["llava-tiny:no-unpad", "llava-1.5-7b:no-unpad"])
def test_other_families_refuse_it_in_one_line(name):
    with pytest.raises(FitPruneError, match="only a LLaVA-NeXT cuts padding off, and this is llava; take --model") as said:
        read_config(find_model(name))
    assert "\n" not in str(said.value)
    with pytest.raises(FitPruneError, match="unknown model 'llava-next-tiny:no-unpadding'"):
        find_model("llava-next-tiny:no-unpadding")


def test_loading_another_family_refuses_it_too():
    with pytest.raises(FitPruneError, match="'llava-tiny:no-unpad': only a LLaVA-NeXT"):
        load_model("llava-tiny:no-unpad", device="cpu")
    with pytest.raises(FitPruneError, match="'llava-tiny:no-unpad': only a LLaVA-NeXT"):
        model_facts("llava-tiny:no-unpad", "cpu")
