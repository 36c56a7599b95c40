"""The published sizes, on the meta device: every name and shape of the real checkpoints, both ways."""

import json
from pathlib import Path

import pytest
import torch

from fitprune.models.parts import model_parts
from harness.models.llava_hr import LlavaHrForConditionalGeneration
from harness.models.llava_hr.authors_config import read_config
from harness.models.llava_hr.names import is_ignored, to_authors, to_ours

pytestmark = pytest.mark.releases
INVENTORY = json.loads((Path(__file__).parents[2] / "reference" / "llava_hr_inventory.json").read_text())
DECODERS = {
    "llava-hr-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "llava-hr-x-13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}


def published(name):
    """Every tensor of a checkpoint by its authors' name, with its shape."""
    tensors = {}
    for pattern in INVENTORY[name]["patterns"]:
        for number in range(pattern["count"]):
            place = pattern["name"].replace("{i}", str(number)).replace("{j}", str(number))
            assert place not in tensors
            tensors[place] = tuple(pattern["shape"])
    assert len(tensors) == INVENTORY[name]["n_tensors"]
    assert sum(torch.Size(shape).numel() for shape in tensors.values()) == INVENTORY[name]["numel_total"]
    return tensors


@pytest.fixture(scope="module", params=list(DECODERS))
def real(request, tmp_path_factory):
    """The name of a published checkpoint, and our model for its config.json, without memory for its weights."""
    folder = tmp_path_factory.mktemp(request.param)
    towers = {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "vision_tower_slow": INVENTORY[request.param]["slow"]}
    fields = {"vocab_size": 32000, "input_image_size": 1024, "rms_norm_eps": 1e-5, "freeze_vision": False}
    (folder / "config.json").write_text(json.dumps({**DECODERS[request.param], **towers, **fields}))
    with torch.device("meta"):
        return request.param, LlavaHrForConditionalGeneration(read_config(folder))


def test_every_tensor_of_the_checkpoint_has_its_place_and_every_place_its_tensor(real):
    name, model = real
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {key: shape for key, shape in published(name).items() if not is_ignored(key)}
    assert {to_ours(key) for key in theirs} == set(ours)
    assert {to_authors(key) for key in ours} == set(theirs)
    padded = {"model.embed_tokens.weight", "lm_head.weight"}
    for key, shape in theirs.items():
        assert ours[to_ours(key)] == ((32064, shape[1]) if key in padded else shape), key


def test_what_is_ignored_is_what_no_forward_reads(real):
    name, _ = real
    ignored = {key for key in published(name) if is_ignored(key)}
    parts = {"head": 0, "post_layernorm": 0, "inv_freq": 0}
    for key in ignored:
        parts[next(part for part in parts if part in key.split("."))] += 1
    assert parts == {
        "head": 6 if name == "llava-hr-7b" else 4,
        "post_layernorm": 2,
        "inv_freq": DECODERS[name]["num_hidden_layers"],
    }


def test_the_sizes_are_the_published_ones(real):
    name, model = real
    config, vision = model.config, model.config.vision_config
    assert (config.image_token_id, config.text_config.vocab_size, config.image_seq_length) == (32000, 32064, 1024)
    assert vision.convnext_config.layer_norm_eps == (1e-5 if "13b" in name else 1e-6)
    assert {module.eps for module in model.model.vision_tower.slow.modules() if isinstance(module, torch.nn.LayerNorm)} == {
        vision.convnext_config.layer_norm_eps
    }
    assert (vision.clip_config.hidden_act, vision.clip_config.layer_norm_eps) == ("quick_gelu", 1e-5)
    unused = sum(torch.Size(shape).numel() for key, shape in published(name).items() if is_ignored(key) and "tower" in key)
    tower = sum(parameter.numel() for parameter in model.model.vision_tower.parameters())
    assert tower + unused == INVENTORY[name]["numel_vision_tower"]


def test_a_pruner_finds_its_way_around(real):
    name, model = real
    parts = model_parts(model)
    assert len(parts.layers) == DECODERS[name]["num_hidden_layers"]
    assert (parts.parent, parts.tower) == (model.model, model.model.vision_tower)
    assert parts.image_token_id == 32000
