"""A model and a prompt of the right shapes with nothing in them: what a layer costs does not depend on what it has learnt.

No accuracy can come of it: it has no processor and no revision, so that no suite can be asked of it.
"""

from typing import Any

import torch

from fitprune.errors import FitPruneError
from harness.models.devices import AUTO, choose_device, choose_dtype
from harness.models.families import FAMILIES
from harness.models.families.unpadding import keep_padding
from harness.models.shipped import transformers_config
from harness.models.spec import ModelSpec, View

SEED = 0
# Token ids of a prompt's text are drawn below this; what stands for an image, a video or padding is left out.
TEXT_IDS = 1000


def random_model(spec: ModelSpec, device: str | None = None, layers: int | None = None, dtype: str | None = None) -> Any:
    """A model in eval mode, of its configuration, which ships with the package or lies in its folder; no weights need be here.

    Each weight is made where it stays, in its dtype: nothing is held twice. Always the same weights on one kind of device.

    Args:
        device: as `load_model` takes it, but for "auto".
        layers: decoder layers, where the model shall have fewer than its configuration says.
        dtype: a name; None is the checkpoint's, on every device.

    Raises:
        FitPruneError: no configuration, more layers than there are, a device that is not there or too small.
    """
    from transformers import AutoModelForImageTextToText

    config = transformers_config(spec)
    text = config.get_text_config()
    if layers is not None:
        if not 1 <= layers <= text.num_hidden_layers:
            raise FitPruneError(f"{spec.name} has {text.num_hidden_layers} decoder layers; --layers cannot be {layers}")
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
    kind = choose_dtype(dtype, device) if dtype else _checkpoint_dtype(spec, config)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in AutoModelForImageTextToText.from_config(config, dtype=kind).parameters())
    chosen = choose_device(device, size * kind.itemsize)
    if chosen == AUTO:
        gigabytes = size * kind.itemsize / 1e9
        raise FitPruneError(f"{spec.name} takes {gigabytes:.1f} GB; random weights go to one device, cpu or cuda:N")
    place = torch.device(chosen)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), place:
        torch.manual_seed(SEED)
        model = AutoModelForImageTextToText.from_config(config, dtype=kind)
    if spec.variant:
        keep_padding(model)
    return model.eval().requires_grad_(False)


def _checkpoint_dtype(spec: ModelSpec, config: Any) -> torch.dtype:
    """Of a registered model its entry's, of others their configuration's."""
    if spec.parameters or spec.kind == "embedded":
        return getattr(torch, spec.dtype)
    return config.dtype or torch.float32


def random_prompt(config: Any, view: View, text_tokens: int, batch: int, like: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a processor would give for `batch` prompts of one image each: noise, and random words around it.

    Half of the text stands before the image, half after it. The same for every call.

    Args:
        config: the model's transformers configuration.
        view: what the model's family makes of the image.
        like: pixels get its device and dtype.
    """
    drawn = torch.Generator().manual_seed(SEED)
    image = view.tokens + view.newlines
    special = {value for name, value in config.to_dict().items() if name.endswith(("_token_id", "_token_index"))}
    vocabulary = min(config.get_text_config().vocab_size, TEXT_IDS)
    words = torch.tensor([word for word in range(vocabulary) if word not in special])
    ids = words[torch.randint(len(words), (batch, text_tokens + image), generator=drawn)]
    ids[:, text_tokens // 2 : text_tokens // 2 + image] = config.image_token_id
    first, *rest = view.pixels
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(batch * first, *rest, generator=drawn).to(like.dtype),
        **{name: torch.tensor(value).repeat(batch, 1) for name, value in view.extra.items()},
    }
    if "image_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = (ids == config.image_token_id).int()
    if FAMILIES[config.model_type].token_types:
        inputs["token_type_ids"] = (ids == config.image_token_id).long()
    return {name: tensor.to(like.device) for name, tensor in inputs.items()}
