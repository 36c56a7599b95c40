"""Small models of the families beside LLaVA-1.5, with random weights and sharpened attention, and processors for them.

`save` writes both to a folder in the layout and with the class names of the hub's checkpoints.
"""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from tokenizers import models as token_models
from tokenizers import pre_tokenizers as splits
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen3Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.support.built import built_once
from tests.support.models import randomise
from tests.support.readers import read

VOCABULARY = 64
PAD = 0
TILE, PATCH = 24, 4

NEXT_GRIDS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
ONEVISION_GRIDS = [[TILE * rows, TILE * columns] for rows in range(1, 5) for columns in range(1, 5)]

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
DECODERS = {
    "llama": (LlamaConfig, {"num_key_value_heads": 4}),
    "mistral": (MistralConfig, {"num_key_value_heads": 2, "sliding_window": None}),
    "qwen2": (Qwen2Config, {"num_key_value_heads": 2}),
    "qwen3": (Qwen3Config, {"num_key_value_heads": 2, "head_dim": 12}),
}

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
# Special tokens by the attribute names that each processor looks for, in the spelling of the hub's checkpoints.
TOKENS = {
    "llava_next": {"image_token": "<image>"},
    "llava_onevision": {"image_token": "<image>", "video_token": "<video>"},
    "qwen2_5_vl": QWEN_TOKENS,
    "qwen3_vl": QWEN_TOKENS,
    "internvl": {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    },
    "smolvlm": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
        "video_token": "<video>",
    },
    "gemma3": {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"},
}
FAMILIES = tuple(TOKENS)
# Families, and decoders of theirs, whose literal decoder is known.
DECODED = [
    ("llava_next", "mistral"),
    ("llava_onevision", "qwen2"),
    ("qwen2_5_vl", None),
    ("qwen3_vl", None),
    ("internvl", "qwen2"),
    ("smolvlm", None),
    ("gemma3", None),
]
# Families whose position ids have three axes.
ON_AXES = ("qwen2_5_vl", "qwen3_vl")
CHAT_TEMPLATE = (
    "{{% for message in messages %}}{{% for part in message['content'] %}}"
    "{{{{ '{image} ' if part['type'] == 'image' else '{video} ' if part['type'] == 'video' else part['text'] + ' ' }}}}"
    "{{% endfor %}}{{% endfor %}}"
)


def _text(kind, layers, options):
    text_class, special = DECODERS[kind]
    return text_class(**_sizes(layers) | special | options)


def _sizes(layers):
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 72,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "max_position_embeddings": 2048,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": None,
    }


def _token(family, name):
    return 4 + list(TOKENS[family]).index(name)


def _llava_next(kind, layers, options, tower):
    return LlavaNextForConditionalGeneration, LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER | {"image_size": TILE, "patch_size": PATCH, "projection_dim": 16} | tower),
        text_config=_text(kind or "llama", layers, options),
        image_token_index=_token("llava_next", "image_token"),
        image_grid_pinpoints=NEXT_GRIDS,
        vision_feature_layer=-2,
        image_seq_length=(TILE // PATCH) ** 2,
    )


def _llava_onevision(kind, layers, options, tower):
    return LlavaOnevisionForConditionalGeneration, LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**TOWER | {"image_size": TILE, "patch_size": PATCH, "vision_use_head": False} | tower),
        text_config=_text(kind or "qwen2", layers, options),
        image_token_index=_token("llava_onevision", "image_token"),
        video_token_index=_token("llava_onevision", "video_token"),
        image_grid_pinpoints=ONEVISION_GRIDS,
    )


def _qwen2_5_vl(kind, layers, options, tower):
    special = {"window_size": 16, "fullatt_block_indexes": [1]}
    text = {"rope_parameters": ROPE | {"mrope_section": [2, 1, 1]}} | options
    return Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig(**_qwen(kind, layers, text, special | tower))


def _qwen3_vl(kind, layers, options, tower):
    special = {"depth": 4, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 2]}
    text = {"head_dim": 12, "rope_parameters": ROPE | {"mrope_section": [2, 2, 2], "mrope_interleaved": True}} | options
    return Qwen3VLForConditionalGeneration, Qwen3VLConfig(**_qwen(kind, layers, text, special | tower))


def _qwen(kind, layers, text, tower):
    """What the configurations of Qwen's models have in common."""
    assert kind is None, "Qwen's models have decoders of their own"
    vision = TOWER | {"depth": 3, "intermediate_size": 28, "num_heads": 2, "patch_size": PATCH, "out_hidden_size": 32}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    del vision["num_hidden_layers"], vision["num_attention_heads"]
    return {
        "vision_config": vision | tower,
        "text_config": _sizes(layers) | {"num_key_value_heads": 2} | text,
        **{name + "_id": 4 + index for index, name in enumerate(QWEN_TOKENS)},
    }


def _internvl(kind, layers, options, tower):
    return InternVLForConditionalGeneration, InternVLConfig(
        vision_config=InternVLVisionConfig(
            **TOWER | {"image_size": TILE, "patch_size": PATCH, "use_qk_norm": True, "norm_type": "rms_norm"} | tower
        ),
        text_config=_text(kind or "qwen2", layers, options),
        image_token_id=_token("internvl", "context_image_token"),
        image_seq_length=(TILE // PATCH // 2) ** 2,
        tie_word_embeddings=False,
    )


def _smolvlm(kind, layers, options, tower):
    return SmolVLMForConditionalGeneration, SmolVLMConfig(
        vision_config=TOWER | {"image_size": TILE, "patch_size": PATCH} | tower,
        text_config=_text(kind or "llama", layers, options),
        image_token_id=_token("smolvlm", "image_token"),
        scale_factor=3,
    )


def _gemma3(kind, layers, options, tower):
    assert kind is None, "Gemma 3 has a decoder of its own"
    kinds = ["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(layers)]
    special = {
        "num_key_value_heads": 2,
        "head_dim": 12,
        "query_pre_attn_scalar": 20,
        "sliding_window": 512,
        "layer_types": kinds,
    }
    special["rope_parameters"] = {"full_attention": ROPE, "sliding_attention": ROPE | {"rope_theta": 100.0}}
    return Gemma3ForConditionalGeneration, Gemma3Config(
        vision_config=SiglipVisionConfig(**TOWER | {"image_size": TILE, "patch_size": PATCH, "vision_use_head": False} | tower),
        text_config=_sizes(layers) | special | options,
        image_token_index=_token("gemma3", "image_token"),
        mm_tokens_per_image=9,
        tie_word_embeddings=False,
    )


CONFIGS = {
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
}


@built_once
def build(family, layers=3, *, seed=0, attention="sdpa", dtype=torch.float32, decoder=None, tower=None, **text):
    """A model of `family`, always with the same weights for a seed, that never ends its answer.

    `decoder` is one of DECODERS, by default the family's usual one; `tower` and `text` change the configurations.
    """
    model_class, config = CONFIGS[family](decoder, layers, text, tower or {})
    torch.manual_seed(seed)
    model = model_class._from_config(config, attn_implementation=attention).eval()
    randomise(model)
    if family == "gemma3":  # whose norms scale by one more than their weights
        for name, weight in model.get_decoder().named_parameters():
            if "norm" in name:
                weight.data -= 1
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return read(model.to(dtype), tokenizer(family))


def tokenizer(family):
    """The words w0 … w39 and the family's special tokens."""
    special = ["<pad>", "<s>", "</s>", "<unk>", *TOKENS[family].values()]
    vocabulary = {token: index for index, token in enumerate([*special, *(f"w{word}" for word in range(40))])}
    backend = Tokenizer(token_models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = splits.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=TOKENS[family],
        padding_side="left",
    )


class _ImagesOnly:
    """A processor without its video processor, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        if argument_name == "video_processor" and argument is None:
            return type(None)
        return super().check_argument_for_proper_class(argument_name, argument)


class _SmolVLM(_ImagesOnly, SmolVLMProcessor):
    """Without the package that writes the number of a video's frames out in words, and what asks for such a number."""

    apply_chat_template = ProcessorMixin.apply_chat_template

    @mock.patch.object(processing_smolvlm, "num2words", str)
    def __init__(self, image_processor, tokenizer, video_processor, image_seq_len=4, chat_template=None, **options):
        super().__init__(image_processor, tokenizer, video_processor, image_seq_len, chat_template, **options)


class _Onevision(_ImagesOnly, LlavaOnevisionProcessor):
    pass


class _Qwen(_ImagesOnly, Qwen2_5_VLProcessor):
    pass


class _Qwen3(_ImagesOnly, Qwen3VLProcessor):
    pass


class _InternVL(_ImagesOnly, InternVLProcessor):
    pass


def _qwen_images():
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 256, "longest_edge": 6400}
    )


# Per family: the hub's processor class, our class, the hub's image processor, ours, and the settings of both.
PROCESSORS = {
    "llava_next": (
        "LlavaNextProcessor",
        LlavaNextProcessor,
        "LlavaNextImageProcessor",
        lambda: LlavaNextImageProcessorPil(
            size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=NEXT_GRIDS
        ),
        {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "llava_onevision": (
        "LlavaOnevisionProcessor",
        _Onevision,
        "LlavaOnevisionImageProcessor",
        lambda: LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, image_grid_pinpoints=ONEVISION_GRIDS),
        {"num_image_tokens": (TILE // PATCH) ** 2, "vision_feature_select_strategy": "full"},
    ),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", _Qwen, "Qwen2VLImageProcessor", _qwen_images, {}),
    "qwen3_vl": ("Qwen3VLProcessor", _Qwen3, "Qwen2VLImageProcessor", _qwen_images, {}),
    "internvl": (
        "InternVLProcessor",
        _InternVL,
        "GotOcr2ImageProcessor",
        lambda: GotOcr2ImageProcessorPil(size={"height": TILE, "width": TILE}, crop_to_patches=True, max_patches=4),
        {"image_seq_length": (TILE // PATCH // 2) ** 2},
    ),
    "smolvlm": (
        "SmolVLMProcessor",
        _SmolVLM,
        "SmolVLMImageProcessor",
        lambda: SmolVLMImageProcessorPil(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}),
        {"image_seq_len": (TILE // PATCH // 3) ** 2},
    ),
    "gemma3": (
        "Gemma3Processor",
        Gemma3Processor,
        "Gemma3ImageProcessor",
        lambda: Gemma3ImageProcessorPil(size={"height": TILE, "width": TILE}),
        {"image_seq_length": 9},
    ),
}


def processor(family):
    """The family's processor, for images only."""
    _, processor_class, _, images, settings = PROCESSORS[family]
    video = {} if family in ("llava_next", "gemma3") else {"video_processor": None}
    return processor_class(
        image_processor=images(), tokenizer=tokenizer(family), chat_template=chat_template(family), **video, **settings
    )


def image_token(family):
    """What stands for an image in a prompt, once per image."""
    return next(iter(TOKENS[family].values()))


def chat_template(family):
    """Images, videos and texts of all turns, one after the other; Qwen's models tell two images apart by what stands around."""
    around = ("<|vision_start|>", "<|vision_end|>") if TOKENS[family] is QWEN_TOKENS else ("", "")
    video = next((token for kind, token in TOKENS[family].items() if "video" in kind), "")
    return CHAT_TEMPLATE.format(image=around[0] + image_token(family) + around[1], video=around[0] + video + around[1])


def save(family, folder, layers=3, **options):
    """A model and its processor in `folder`, as a hub repository holds them; options as in `build`."""
    folder = Path(folder)
    build(family, layers, **options).save_pretrained(folder)
    name, _, image_name, images, settings = PROCESSORS[family]
    images().save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(chat_template(family))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": name, **settings}))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_processor_type": image_name, "processor_class": name}))
    return folder


def image(width, height, seed=0):
    """A picture of noise, smooth enough to survive being resized."""
    noise = np.random.default_rng(seed + 1000 * width + height).integers(0, 255, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def inputs(processor, samples, seed=0):
    """What the processor gives for `samples`, padded on the left.

    A sample is a list of texts and of image sizes (width, height), in the order of the prompt.
    """
    token = processor.image_token
    texts = [" ".join(token if isinstance(part, tuple) else part for part in sample) for sample in samples]
    images = [
        [image(*part, seed=seed + place) for place, part in enumerate(sample) if isinstance(part, tuple)] for sample in samples
    ]
    if not isinstance(processor, SmolVLMProcessor | Gemma3Processor):  # it takes an empty list, too
        images = [own for own in images if own]
    return dict(processor(images=images if any(images) else None, text=texts, padding=True, return_tensors="pt"))
