"""For tests: small LLaVA-HR checkpoints as the authors lay theirs out, with random weights."""

import json
import string

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import LlamaTokenizer

from tests.reference.llava_hr import FAST, FINAL, LATENT, SLOW, Sizes

VOCABULARY = 330
HIDDEN, DEPTH = 32, 3
CLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56}
CONVNEXT = {"depths": [1, 2, 1, 1], "hidden_sizes": [4, 6, 8, 12]}
SIZES = Sizes(heads=2, depths=(1, 2, 1, 1), epsilon=1e-6)

CONFIG = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava",
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 40,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "vision_tower_slow": "convnext_large_mlp.clip_laion2b_ft_320",
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 16,
    "mm_vision_select_layer": -2,
    "is_multipath_encoder": True,
    "input_image_size": 64,
    "freeze_vision": False,
    "image_aspect_ratio": "pad",
}


def shapes(*, frozen=False, unused=True):
    """Every tensor of the small checkpoint, by the authors' names; `unused`: those that a model has no use for as well."""
    width, inner, wide = CLIP["hidden_size"], CLIP["intermediate_size"], CONVNEXT["hidden_sizes"][-1]
    found = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    found["lm_head.weight"] = (VOCABULARY, HIDDEN)

    def put(name, *shape):
        found[name + ".weight"], found[name + ".bias"] = shape, (shape[0],)

    for layer in range(DEPTH):
        name = f"model.layers.{layer}."
        found |= {f"{name}self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        found |= {f"{name}mlp.{part}_proj.weight": (40, HIDDEN) for part in ("gate", "up")}
        found[name + "mlp.down_proj.weight"] = (HIDDEN, 40)
        found |= {f"{name}{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
        if unused:
            found[name + "self_attn.rotary_emb.inv_freq"] = (4,)
    found[FAST + "embeddings.class_embedding"] = (width,)
    found[FAST + "embeddings.patch_embedding.weight"] = (width, 3, 14, 14)
    found[FAST + "embeddings.position_embedding.weight"] = (17, width)
    put(FAST + "pre_layrnorm", width)
    for layer in range(CLIP["num_hidden_layers"]):
        name = f"{FAST}encoder.layers.{layer}."
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            put(f"{name}self_attn.{part}", width, width)
        put(name + "layer_norm1", width)
        put(name + "layer_norm2", width)
        put(name + "mlp.fc1", inner, width)
        put(name + "mlp.fc2", width, inner)
    before = None
    for stage, (depth, own) in enumerate(zip(CONVNEXT["depths"], CONVNEXT["hidden_sizes"], strict=True)):
        if before is None:
            put(SLOW + "stem.0", own, 3, 4, 4)
            put(SLOW + "stem.1", own)
        else:
            put(f"{SLOW}stages.{stage}.downsample.0", before)
            put(f"{SLOW}stages.{stage}.downsample.1", own, before, 2, 2)
        before = own
        for block in range(depth):
            name = f"{SLOW}stages.{stage}.blocks.{block}"
            found[name + ".weight"] = (own,)
            put(name + ".conv_dw", own, 1, 7, 7)
            put(name + ".norm", own)
            put(name + ".mlp.fc1", 4 * own, own)
            put(name + ".mlp.fc2", own, 4 * own)
    if unused:
        put(FAST + "post_layernorm", width)
        put(SLOW + "head.norm", wide)
        put(SLOW + "head.pre_logits.fc", wide, wide)
        put(SLOW + "head.fc", 10, wide)
    for index in range(0 if frozen else 3):
        name = f"{LATENT}{index}."
        put(name + "slow_conv", wide, wide, 1, 1)
        put(name + "slow_proj", width, wide, 1, 1)
        put(name + "fast_conv", width, 1, 7, 7)
        put(name + "fast_proj", width, width, 1, 1)
        put(name + "gate.0", width // 2, 2 * width)
        put(name + "gate.2", 1, width // 2)
    put(FINAL + "fast_proj", width, width)
    put(FINAL + "slow_proj", width, wide)
    put("model.mm_projector.0", HIDDEN, width)
    put("model.mm_projector.2", HIDDEN, HIDDEN)
    return found


def weights(*, frozen=False, seed=0, dtype=torch.float32):
    """Random tensors of those shapes, large enough that every part of the model counts."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes(frozen=frozen).items():
        draw = torch.randn(shape, generator=generator)
        fan = draw[0].numel() if len(shape) > 1 else 1
        is_norm = "norm" in name or ".downsample.0." in name or ".stem.1." in name
        if len(shape) == 1 and name.endswith("weight"):
            draw = 1 + 0.2 * draw if is_norm else 0.5 * draw
        elif "embed" in name or name.startswith("lm_head"):
            draw = draw * (0.05 if "patch" in name else 1.0)
        else:
            draw = draw * (1.5 / fan**0.5 if len(shape) > 1 else 0.2)
        found[name] = draw.to(dtype)
    return found


def tokenizer():
    """Vicuna's kind: byte fallback, a space in front of a text; 330 tokens."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    single = ["▁", *string.ascii_letters, *".,:?!'-"]
    merges = [("▁", "a"), ("▁", "t"), ("o", "r"), ("▁", "i"), ("i", "s")]
    vocabulary = {token: place for place, token in enumerate([*special, *single, *("".join(pair) for pair in merges)])}
    for place in range(len(vocabulary), VOCABULARY):
        vocabulary[f"filler{place}"] = place
    return LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True, model_max_length=2048, padding_side="right")


def save(folder, tensors, *, layout="bin", shards=2, config=None, with_tokenizer=True):
    """Write a checkpoint: `layout` "bin" or "safetensors", in so many shards (1: one file without an index)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    if with_tokenizer:
        tokenizer().save_pretrained(folder)
    stem, ending = ("pytorch_model", "bin") if layout == "bin" else ("model", "safetensors")
    places, names = {}, list(tensors)
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{ending}" if shards > 1 else f"{stem}.{ending}"
        part = {name: tensors[name] for name in names[number::shards]}
        places |= dict.fromkeys(part, file)
        if layout == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
    if shards > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": places}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return folder


def picture(width, height, mode="RGB", seed=0):
    """An image of noise."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(data[:, :, 0] if bands == 1 else data, mode)
