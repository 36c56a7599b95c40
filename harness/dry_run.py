"""Which tokens enter which layer, and what scoring costs, without the model: a pruner run on a narrow decoder.

How many tokens a method keeps depends on the numbers of layers and tokens, not on the width of the decoder; what its
scoring costs grows with the width in a straight line, the products of queries and keys. So the method itself runs, with its
own code, on two decoders of one head and a few channels, with as many layers and tokens as the real one.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from fitprune import Pruner, Recipe
from fitprune.sizes import DecoderSizes

IMAGE, PAD = 2, 0
WIDTHS = (4, 8)


@dataclass(frozen=True)
class Plan:
    """What `fitprune.Trace` records, for one prompt.

    Attributes:
        text_tokens, visual_tokens: (1,).
        visual_in, visual_out: per decoder layer, (1,): tokens that enter it, and that its output projection and FFN see.
        scoring_macs: per layer.
    """

    text_tokens: torch.Tensor
    visual_tokens: torch.Tensor
    visual_in: list[torch.Tensor]
    visual_out: list[torch.Tensor]
    scoring_macs: list[int]


def plan(pruner: Pruner, config: Any, text_tokens: int, visual_tokens: int) -> Plan:
    """What `pruner` does to a prompt of one image, its text after it, on the model with this configuration.

    Exact for methods whose counts depend on counts alone. Raises what the method raises.
    """
    sizes = DecoderSizes.of(config)
    narrow, wide = (_run(pruner, sizes.layers, text_tokens, visual_tokens, width) for width in WIDTHS)
    slope = [(b - a) / (WIDTHS[1] - WIDTHS[0]) for a, b in zip(narrow.scoring_macs, wide.scoring_macs, strict=True)]
    return Plan(
        narrow.text_tokens,
        narrow.visual_tokens,
        narrow.visual_in,
        narrow.visual_out,
        [round(a + s * (sizes.q_size - WIDTHS[0])) for a, s in zip(narrow.scoring_macs, slope, strict=True)],
    )


@torch.inference_mode()
def _run(pruner: Pruner, layers: int, text_tokens: int, visual_tokens: int, width: int) -> Any:
    """The trace of one prefill on a random decoder of one head of `width` channels."""
    model = _decoder(layers, text_tokens + visual_tokens, width)
    ids = torch.full((1, visual_tokens + text_tokens), 1)
    ids[:, :visual_tokens] = IMAGE
    with _unbound(pruner)(model) as trace:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=1, use_cache=False)
    return trace


def _unbound(pruner: Pruner) -> Pruner:
    """The pruner with recipes that fit any decoder of as many layers."""
    recipes: dict[str, Any] = {
        field.name: dataclasses.replace(value, sizes=None)
        for field in dataclasses.fields(pruner)
        if isinstance(value := getattr(pruner, field.name), Recipe)
    }
    return dataclasses.replace(pruner, **recipes) if recipes else pruner


def _decoder(layers: int, tokens: int, width: int) -> torch.nn.Module:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=4,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            image_size=2,
            patch_size=2,
            projection_dim=4,
        ),
        text_config=LlamaConfig(
            vocab_size=4,
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=layers,
            num_attention_heads=1,
            max_position_embeddings=tokens,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=None,
        ),
        image_token_index=IMAGE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlavaForConditionalGeneration(config).eval()
