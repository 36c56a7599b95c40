"""The configurations that ship: transformers builds the real models of them, with the published number of parameters."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from fitprune.models.parts import model_parts
from harness.models.families import FAMILIES
from harness.models.gpu_memory import decoder_sizes, gpu_bytes
from harness.models.registry import MODELS
from harness.models.shipped import CONFIGS, config_file, read_config, transformers_config
from harness.models.spec import View

pytestmark = pytest.mark.releases

# LLaVA-HR's published number counts parts of the checkpoints that no forward reads: a test of its own, below.
SHIPPED = [name for name, spec in MODELS.items() if spec.kind == "hub" and spec.family != "llava_hr"]

# What the hub pages give, in units of a thousandth: an independent statement of each model's size.
PUBLISHED = {
    "llava-1.5-7b": 7.06,
    "llava-1.5-13b": 13.35,
    "llava-next-7b": 7.06,
    "llava-next-mistral-7b": 7.57,
    "llava-next-13b": 13.35,
    "llava-onevision-0.5b": 0.894,
    "llava-onevision-7b": 8.03,
    "qwen2.5-vl-3b": 3.75,
    "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-2b": 2.13,
    "qwen3-vl-4b": 4.44,
    "qwen3-vl-8b": 8.77,
    "internvl3-1b": 0.938,
    "internvl3-8b": 7.94,
    "internvl3.5-1b": 1.06,
    "internvl3.5-8b": 8.53,
    "smolvlm2-500m": 0.507,
    "smolvlm2-2.2b": 2.25,
    "gemma-3-4b": 4.30,
}
# Where a tower is that is not called the vision tower, and which families' towers begin with [CLS].
TOWERS = {"qwen2_5_vl": "model.visual", "qwen3_vl": "model.visual", "smolvlm": "model.vision_model"}
WITH_CLS = {"llava", "llava_next", "internvl"}
# Layers, hidden size, FFN size, key-value size, of the papers and the language models' own cards.
DECODERS = {
    "llava-1.5-7b": (32, 4096, 11008, 4096),
    "llava-1.5-13b": (40, 5120, 13824, 5120),
    "llava-next-mistral-7b": (32, 4096, 14336, 1024),
    "llava-onevision-0.5b": (24, 896, 4864, 128),
    "llava-onevision-7b": (28, 3584, 18944, 512),
    "qwen2.5-vl-3b": (36, 2048, 11008, 256),
    "qwen2.5-vl-7b": (28, 3584, 18944, 512),
    "qwen3-vl-2b": (28, 2048, 6144, 1024),
    "qwen3-vl-4b": (36, 2560, 9728, 1024),
    "qwen3-vl-8b": (36, 4096, 12288, 1024),
    "internvl3-1b": (24, 896, 4864, 128),
    "internvl3.5-1b": (28, 1024, 3072, 1024),
    "internvl3.5-8b": (36, 4096, 12288, 1024),
    "smolvlm2-500m": (32, 960, 2560, 320),
    "smolvlm2-2.2b": (24, 2048, 8192, 2048),
    "gemma-3-4b": (34, 2560, 10240, 1024),
}


def on_meta(name):
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(transformers_config(MODELS[name]))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_model_of_a_configuration_has_the_published_size_and_anatomy(name):
    model, spec = on_meta(name), MODELS[name]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == spec.parameters
    digits = 3 if PUBLISHED[name] < 1 else 2
    assert round(total / 1e9, digits) == PUBLISHED[name]
    family, parts = FAMILIES[spec.family], model_parts(model)
    assert model.config.model_type == family.model_type == spec.family
    assert parts.decoder is model.get_submodule("model.text_model" if spec.family == "smolvlm" else "model.language_model")
    assert parts.tower is model.get_submodule(TOWERS.get(spec.family, "model.vision_tower"))
    assert parts.image_token_id == model.config.image_token_id
    assert str(model.dtype) == f"torch.{spec.dtype}"
    tower = dict(parts.tower.named_parameters())
    assert (spec.family in WITH_CLS) == any(key.endswith(("class_embedding", "cls_token")) for key in tower)


@pytest.mark.parametrize("name", ["llava-hr-7b", "llava-hr-x-13b"])
def test_llava_hr_has_every_parameter_of_the_inventory_that_a_forward_reads(name):
    pytest.importorskip("harness.models.llava_hr", reason="LLaVA-HR's classes are not in this tree")
    inventory = json.loads((Path(__file__).parents[2] / "reference" / "llava_hr_inventory.json").read_text())[name]
    assert inventory["numel_total"] == MODELS[name].parameters
    unread = ("rotary_emb.inv_freq", ".post_layernorm.", ".slow_vision_tower.vision_tower.head.")
    read = [entry for entry in inventory["patterns"] if not any(part in entry["name"] for part in unread)]
    numbers = sum(entry["count"] * math.prod(entry["shape"]) for entry in read)
    model = on_meta(name)
    # As in llava-hf's checkpoints, the vocabulary is padded from 32000 to 32064.
    padding = 2 * 64 * model.config.text_config.hidden_size
    assert sum(parameter.numel() for parameter in model.parameters()) == numbers + padding
    assert model.config.vision_config.image_tokens == 1024


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_sizes_are_those_of_the_language_model(name):
    config = read_config(MODELS[name])
    assert decoder_sizes(config)[:4] == DECODERS[name]
    text = transformers_config(MODELS[name]).get_text_config()
    assert decoder_sizes(config)[4] == text.vocab_size
    assert decoder_sizes(config)[3] == text.num_key_value_heads * (
        getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    )


def test_there_is_a_configuration_for_every_hub_model_and_no_other():
    assert {path.stem for path in CONFIGS.glob("*.json")} == {name for name, spec in MODELS.items() if spec.kind == "hub"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_configurations_name_no_code_and_their_own_family(path):
    record = json.loads(path.read_text())
    assert "auto_map" not in record
    assert record["model_type"] == MODELS[path.stem].family


def test_an_embedded_model_has_its_own_configuration():
    assert config_file(MODELS["llava-tiny"]).parent.name == "llava-tiny"


def test_gpu_memory_of_the_seven_billion_model_by_hand():
    config = read_config(MODELS["llava-1.5-7b"])
    need = gpu_bytes(config, 7_063_427_072, "float16", View(576, (1, 3, 336, 336)))
    cache = 2 * 32 * 4096 * (576 + 64 + 128) * 2  # keys and values, 32 layers, half precision
    activations = 640 * (6 * 4096 + 3 * 11008) * 2
    assert need == 14_126_854_144 + cache + activations + 4 * 32064 + 800_000_000
    assert 14.1e9 < need < 16e9  # what people see on a 16 GB card
    tiles = gpu_bytes(config, 7_063_427_072, "float16", View(576, (1, 21, 3, 336, 336)))
    assert tiles > need  # more tiles, more of the tower at once
