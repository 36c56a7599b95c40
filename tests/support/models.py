"""Small LLaVAs with random weights and sharpened attention, so that tokens differ clearly in score; prompts for them."""

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
)

from fitprune.flops import visual_macs
from tests.support.built import built_once
from tests.support.readers import read

IMAGE = 63
PAD = 0
VOCABULARY = 64

DECODERS = {
    "llama": (LlamaConfig, {"num_key_value_heads": 4}),
    "llama-gqa": (LlamaConfig, {"num_key_value_heads": 2}),
    "mistral": (MistralConfig, {"num_key_value_heads": 2, "head_dim": 12, "sliding_window": None}),
    "qwen2": (Qwen2Config, {"num_key_value_heads": 2}),
}


@built_once
def build(kind="llama", layers=3, *, patch=4, hidden=32, heads=4, seed=0, attention="sdpa", dtype=torch.float32, **text):
    """A LLaVA over 24×24 images with (24 / patch)² visual tokens each, without an end-of-text token."""
    torch.manual_seed(seed)
    text_class, special = DECODERS[kind]
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden + 8,
        "num_attention_heads": heads,
    }
    sizes |= {"num_hidden_layers": layers, "max_position_embeddings": 1024}
    special_tokens = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": None}
    text_config = text_class(**{**sizes, **special_tokens, **special, **text})
    vision_config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=24,
        patch_size=patch,
        projection_dim=16,
    )
    config = LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=IMAGE,
        vision_feature_layer=-1,
        image_seq_length=(24 // patch) ** 2,
    )
    config._attn_implementation = attention
    model = LlavaForConditionalGeneration(config).eval()
    randomise(model)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return read(model.to(dtype))


@torch.no_grad()
def randomise(model):
    """Draws every decoder weight anew, biases and norms too, with sharp queries and keys; enlarges image features."""
    decoder = model.get_decoder()
    for name, weight in decoder.named_parameters():
        if "norm" in name:
            weight.uniform_(0.7, 1.3)
        elif name.endswith("bias"):
            weight.normal_(0, 0.5)
        elif "embed" in name:
            weight.normal_(0, 1)
        else:
            sharp = 1.6 if "q_proj" in name or "k_proj" in name else 0.7
            weight.normal_(0, sharp / weight.shape[1] ** 0.5)
    model.lm_head.weight.normal_(0, 1)
    own = {id(parameter) for parameter in decoder.parameters()}
    for parameter in model.model.parameters():
        if parameter.dim() > 1 and id(parameter) not in own:
            parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)


def visual_tokens(model):
    """Visual tokens of one image."""
    return (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2


def prompt(model, parts, seed=0):
    """One sample as a processor gives it: `parts` are counts of text tokens and "image", in the order of the prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids, images = [], 0
    for part in parts:
        if part == "image":
            ids += [IMAGE] * visual_tokens(model)
            images += 1
        else:
            ids += torch.randint(2, IMAGE, (part,), generator=generator).tolist()
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if images:
        size = model.config.vision_config.image_size
        pixels = torch.randn(images, 3, size, size, generator=generator)
        inputs["pixel_values"] = pixels.to(model.dtype)
    return inputs


def batch(samples, side="left"):
    """Several samples padded to one batch on the given side."""
    longest = max(sample["input_ids"].shape[1] for sample in samples)
    ids = torch.full((len(samples), longest), PAD)
    mask = torch.zeros(len(samples), longest, dtype=torch.long)
    for row, sample in enumerate(samples):
        length = sample["input_ids"].shape[1]
        place = slice(longest - length, longest) if side == "left" else slice(0, length)
        ids[row, place] = sample["input_ids"][0]
        mask[row, place] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    pixels = [sample["pixel_values"] for sample in samples if "pixel_values" in sample]
    if pixels:
        inputs["pixel_values"] = torch.cat(pixels)
    return inputs


def kept(trace, row=0):
    """What a trace says was kept of one sample: per layer a list, after checking that padding stands on the right."""
    lists = []
    for layer in trace.kept:
        indices = layer[row].tolist()
        real = [index for index in indices if index >= 0]
        assert indices == real + [-1] * (len(indices) - len(real))
        assert real == sorted(set(real))
        lists.append(real)
    return lists


def new_tokens(model, inputs, count=6, **options):
    """The greedy continuation (or what `options` ask for), prompt cut off: LongTensor (batch, count)."""
    torch.manual_seed(0)
    out = model.generate(**inputs, max_new_tokens=count, **{"do_sample": False, **options})
    return out[:, inputs["input_ids"].shape[1] :]


def saved(trace, visual_tokens, **sizes):
    """What a prefill of one sample saved of its visual tokens' decoder FLOPs, scoring taken off; for drops before layers."""
    spent = sum(visual_macs([0], int(count), **sizes) for count in trace.visual_in) + sum(trace.scoring_macs)
    return 1 - spent / visual_macs([0] * len(trace.visual_in), visual_tokens, **sizes)
