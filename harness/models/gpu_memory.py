"""GPU memory that a model needs, from its sizes. An estimate: what is measured stands in results."""

import gc
import math
from collections.abc import Mapping
from typing import Any

from fitprune.arguments import TYPICAL_SIZE
from fitprune.errors import FitPruneError
from harness.models.checkpoint import checkpoint_folder, weight_files
from harness.models.devices import choose_dtype
from harness.models.registry import find_model
from harness.models.shipped import family_of, transformers_config
from harness.models.spec import BYTES, View
from harness.models.tensors import parameters as parameters_of

NEW_TOKENS = 128
TEXT_TOKENS = 64
# What CUDA, cuBLAS and the allocator's rounding take beside the tensors.
OVERHEAD = 0.8e9


def decoder_sizes(config: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    """(layers, hidden size, FFN size, key-value size, vocabulary) of a `config.json`'s text decoder.

    Keys that a saved LLaMA-like configuration may leave out have transformers' defaults.
    """
    text = config["text_config"]
    heads = text["num_attention_heads"]
    head = text.get("head_dim") or text["hidden_size"] // heads
    kv_size = (text.get("num_key_value_heads") or heads) * head
    return text["num_hidden_layers"], text["hidden_size"], text["intermediate_size"], kv_size, text["vocab_size"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a card, or the CPU's allocator, has no memory left."""
    import torch

    said = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def no_memory(what: str, batch: int) -> FitPruneError:
    """The refusal of what runs out of memory, in questions at a time."""
    smaller = f"a --batch-size of {batch // 2}, " if batch > 1 else ""
    return FitPruneError(
        f"{what}: out of memory with {batch} question{'s' * (batch > 1)} at a time; take {smaller}fewer workers (-n), "
        "a card with more free memory (--device), or --device auto, which spreads the model over all cards"
    )


def release_memory() -> None:
    """Give back what is no longer in use."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def worker_bytes(model: str, batch: int, device: str = "cuda") -> int | None:
    """Bytes for batches of a model's prompts on a device, in the dtype that it is loaded in there; None where that cannot be
    said of a model of its kind.
    """
    spec = find_model(model)
    dtype = str(choose_dtype(None, device)).removeprefix("torch.")
    try:
        config = transformers_config(spec).to_dict()
        view = family_of(spec, config).view(config, *TYPICAL_SIZE)
        total = sum(parameters_of(path) for path in weight_files(checkpoint_folder(spec)))
        return gpu_bytes(config, total, dtype, view, batch)
    except (FitPruneError, KeyError, TypeError):
        return None


def gpu_bytes(config: Mapping[str, Any], parameters: int, dtype: str, view: View, batch: int = 1) -> int:
    """Bytes for a batch of prompts of an image and 64 text tokens, and 128 generated tokens, dense.

    The sum of
        weights       parameters × bytes
        KV cache      2 × layers × key-value size × tokens × bytes
        activations   tokens × (6 × hidden size + 3 × FFN size) × bytes: residual, norm, queries, keys, values and output,
                      and the three FFN products, of the one layer that is running; of the decoder, or of the vision
                      tower over all tiles where that is more
        logits        vocabulary × 4 (of the last row, in float32)
    the last three for each prompt of the batch, and 0.8 GB for CUDA itself.
    """
    layers, hidden, inner, kv_size, vocabulary = decoder_sizes(config)
    size = BYTES[dtype]
    prompt = view.tokens + view.newlines + TEXT_TOKENS
    cache = 2 * layers * kv_size * (prompt + NEW_TOKENS) * size
    activations = max(prompt * (6 * hidden + 3 * inner), _tower(config, view)) * size
    return math.ceil(parameters * size + batch * (cache + activations + 4 * vocabulary) + OVERHEAD)


def _tower(config: Mapping[str, Any], view: View) -> int:
    """Numbers that one layer of a transformer tower holds over all patches; 0 where the sizes are not one tower's."""
    vision = config.get("vision_config", {})
    patch, hidden, inner = (vision.get(name) for name in ("patch_size", "hidden_size", "intermediate_size"))
    if not (patch and hidden and inner):
        return 0
    side = patch if isinstance(patch, int) else patch[0]
    patches = math.prod(view.pixels) // (3 * side**2 * vision.get("temporal_patch_size", 1))
    return patches * (6 * hidden + 3 * inner)
