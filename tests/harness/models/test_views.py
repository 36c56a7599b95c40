"""What a family makes of an image, against transformers' own processors at the published settings."""

import pytest
from PIL import Image
from transformers import (
    Gemma3Processor,
    InternVLProcessor,
    LlavaNextProcessor,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from harness.models.families import FAMILIES, qwen2_5_vl, qwen3_vl
from harness.models.families.internvl import tiling
from harness.models.registry import MODELS
from harness.models.shipped import read_config
from tests.support.families import _ImagesOnly, _SmolVLM, tokenizer

pytestmark = pytest.mark.releases
SIZES = [(1024, 768), (336, 336), (100, 900), (901, 99), (640, 480), (8, 6), (37, 1999), (1500, 1501), (512, 383)]


class Onevision(_ImagesOnly, LlavaOnevisionProcessor):
    pass


class Qwen(_ImagesOnly, Qwen2_5_VLProcessor):
    pass


class Qwen3(_ImagesOnly, Qwen3VLProcessor):
    pass


class InternVL(_ImagesOnly, InternVLProcessor):
    pass


def settings(name):
    return dict(FAMILIES[MODELS[name].family].processor(read_config(MODELS[name])))


def llava_next(name):
    crop = {"height": 336, "width": 336}
    pinpoints = read_config(MODELS[name])["image_grid_pinpoints"]
    images = LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size=crop, image_grid_pinpoints=pinpoints)
    return LlavaNextProcessor(images, tokenizer("llava_next"), **settings(name))


def llava_onevision(name):
    pinpoints = read_config(MODELS[name])["image_grid_pinpoints"]
    images = LlavaOnevisionImageProcessorPil(size={"height": 384, "width": 384}, image_grid_pinpoints=pinpoints)
    return Onevision(images, tokenizer("llava_onevision"), None, **settings(name))


def qwen_images(patch, family):
    bounds = {"shortest_edge": family.MIN_PIXELS, "longest_edge": family.MAX_PIXELS}
    return Qwen2VLImageProcessorPil(patch_size=patch, temporal_patch_size=2, merge_size=2, size=bounds)


def qwen(name):
    return Qwen(qwen_images(14, qwen2_5_vl), tokenizer("qwen2_5_vl"), None)


def qwen3(name):
    return Qwen3(qwen_images(16, qwen3_vl), tokenizer("qwen3_vl"), None)


def internvl(name):
    images = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True, min_patches=1, max_patches=12)
    return InternVL(images, tokenizer("internvl"), None, **settings(name))


def smolvlm(name):
    side = read_config(MODELS[name])["vision_config"]["image_size"]
    images = SmolVLMImageProcessorPil(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side})
    return _SmolVLM(images, tokenizer("smolvlm"), None, **settings(name))


def gemma3(name):
    side = read_config(MODELS[name])["vision_config"]["image_size"]
    return Gemma3Processor(Gemma3ImageProcessorPil(size={"height": side, "width": side}), tokenizer("gemma3"), **settings(name))


PROCESSORS = {
    "llava-next-7b": llava_next,
    "llava-onevision-0.5b": llava_onevision,
    "qwen2.5-vl-3b": qwen,
    "qwen3-vl-2b": qwen3,
    "internvl3-1b": internvl,
    "smolvlm2-500m": smolvlm,
    "gemma-3-4b": gemma3,
    "smolvlm2-2.2b": smolvlm,
}


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", PROCESSORS)
def test_tokens_and_tensors_are_those_of_the_processor(name, size):
    width, height = size
    processor = PROCESSORS[name](name)
    view = FAMILIES[MODELS[name].family].view(read_config(MODELS[name]), width, height)
    made = processor(images=[Image.new("RGB", size)], text=[processor.image_token], return_tensors="pt")
    assert int((made["input_ids"] == processor.image_token_ids[0]).sum()) == view.tokens + view.newlines
    assert tuple(made["pixel_values"].shape) == view.pixels
    for key, value in view.extra.items():
        assert made[key].tolist() == value


def test_llava_has_one_resolution():
    images = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    processor = LlavaProcessor(images, tokenizer("llava_next"), **settings("llava-1.5-7b"))
    made = processor(images=[Image.new("RGB", (500, 90))], text=["<image>"], return_tensors="pt")
    view = FAMILIES["llava"].view(read_config(MODELS["llava-1.5-7b"]), 500, 90)
    assert int((made["input_ids"] == processor.image_token_id).sum()) == view.tokens == 576
    assert tuple(made["pixel_values"].shape) == view.pixels


def test_the_paper_s_numbers():
    following = FAMILIES["llava_next"].view(read_config(MODELS["llava-next-7b"]), 672, 672)
    assert (following.tokens, following.newlines) == (2880, 48)
    assert FAMILIES["llava_hr"].view(read_config(MODELS["llava-hr-7b"]), 300, 200).tokens == 1024


def test_of_equally_near_grids_the_image_s_area_decides():
    assert tiling(200, 200, 448) == (1, 1)
    assert tiling(1000, 1000, 448) == (3, 3)
