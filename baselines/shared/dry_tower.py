"""What methods that look into the vision tower, change what runs there, or prune videos do to a prompt, without the model.

How many tokens they keep, and what choosing them costs, depends on sizes alone. So they run, with their own code, on random
features of the model's sizes, or in a narrow tower with as many layers and patches as the model's.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from baselines.shared.budget import TEXT_TOKENS
from baselines.shared.questions import WIDTH as WIDTH_OF_CLIP
from baselines.shared.questions import text_macs
from fitprune import Pruner, Selection, UnsupportedModel
from fitprune.interface.layout import prompt_layout
from fitprune.interface.tokens import LayerContext, VisualTokens
from fitprune.interface.tower import TowerRecord
from fitprune.interface.trace import TowerCounts
from fitprune.models.images import Images
from fitprune.models.reader import Reader
from fitprune.models.sizes import DecoderSizes, TowerSizes, tower_sizes
from fitprune.models.tower import TowerParts

WIDTH, IMAGE = 8, 2


@torch.inference_mode()
def before_decoder(pruner: Pruner, config: Any, visual_tokens: int, views: int) -> tuple[int, int]:
    """How many of the visual tokens of an image with so many views a method with `vision = True` leaves; what it spends.

    Tokens that the views have more patches than are taken to be cut off from all of them alike.

    Raises:
        UnsupportedModel: a tower of an unknown form.
    """
    sizes, hidden_size = tower_sizes(config), DecoderSizes.of(config).hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reader = _AnyReader(hidden_size)
        around = LayerContext(
            parts=cast(Any, SimpleNamespace(visual_ids={"image": IMAGE}, parent=SimpleNamespace(fitprune_reader=reader))),
            prompt={"input_ids": torch.ones(1, 1)},
            tower=_seen(pruner, sizes, hidden_size, views),
            global_index=torch.arange(visual_tokens)[None] * views * sizes.patches // visual_tokens,
        )
        return _left(pruner, around, visual_tokens, hidden_size)


@torch.inference_mode()
def of_a_video(pruner: Pruner, config: Any, visual_tokens: int) -> tuple[int, int]:
    """How many of a video's visual tokens a method that prunes videos leaves; what it spends.

    How many frames the video has is not known: it is taken to have about as many as each has tokens.
    """
    frames = max(count for count in range(1, math.isqrt(visual_tokens) + 1) if visual_tokens % count == 0)
    video = Images([torch.empty(0)], [visual_tokens], [(visual_tokens // frames, frames)])
    around = LayerContext(prompt={"seen": {"video": (video, torch.ones(1, visual_tokens, dtype=torch.bool))}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _left(pruner, around, visual_tokens, DecoderSizes.of(config).hidden_size)


def _left(pruner: Pruner, around: LayerContext, visual_tokens: int, hidden_size: int) -> tuple[int, int]:
    """How many of a prompt's visual tokens a method leaves before the decoder; what it spends."""
    visual = torch.ones(1, visual_tokens, dtype=torch.bool)
    layout = prompt_layout(visual, visual, None)
    tokens = VisualTokens(torch.randn(1, visual_tokens, hidden_size), layout, context=around)
    choice = pruner.before_layer(0, tokens)
    if choice is None:
        return visual_tokens, tokens.macs
    kept = choice.keep(layout) if isinstance(choice, Selection) else layout.kept_of(choice)
    return kept.counts[0], tokens.macs


class _AnyClip:
    """Brings texts and patches into a space of CLIP's width, at the price of a short question."""

    def texts(self, texts: Sequence[str], device: torch.device) -> tuple[torch.Tensor, int]:
        return torch.randn(len(texts), WIDTH_OF_CLIP), text_macs()

    def patches(self, features: torch.Tensor) -> torch.Tensor:
        return torch.randn(*features.shape[:-1], WIDTH_OF_CLIP)


class _AnyReader(Reader):
    """Reads a question of as many words as budgets assume, whatever the prompt."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(None)
        self.hidden_size = hidden_size

    def questions(self, ids: torch.Tensor, real: torch.Tensor) -> list[str]:
        return ["?"]

    def embeddings(self, model: Any, words: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        return [torch.randn(TEXT_TOKENS, self.hidden_size)]

    def clip(self) -> Any:
        return _AnyClip()


def _seen(pruner: Pruner, sizes: TowerSizes, hidden_size: int, views: int) -> TowerRecord:
    """What is seen of a tower of these sizes after so many views of one image."""
    observed = {layer % sizes.layers for layer in pruner.observed_tower_layers(sizes.layers)}
    shape = (views, sizes.heads, sizes.tokens, sizes.width // sizes.heads)
    layers = [nn.utils.skip_init(nn.Linear, size, hidden_size) for size in (sizes.width, hidden_size)]
    projector = nn.Sequential(*layers)
    side = math.isqrt(sizes.patches)
    return TowerRecord(
        tower=TowerParts(None, range(sizes.layers), projector, sizes.has_cls, sizes.mixes, sizes.feature_layer),
        query={layer: torch.randn(shape) for layer in observed},
        key={layer: torch.randn(shape) for layer in observed},
        features=torch.randn(views, sizes.patches, sizes.width),
        cls_features=torch.randn(views, sizes.width) if sizes.has_cls else None,
        grid=(side, side),
        views=[views],
        global_index=[],
    )


@torch.inference_mode()
def through_tower(pruner: Pruner, config: Any, visual_tokens: int, views: int) -> tuple[int, int, TowerCounts]:
    """How many visual tokens a method that changes what runs in the tower leaves; what it spends; what runs.

    One view goes through a narrow tower; all do alike. What the method spends grows with the size of a head.

    Raises:
        UnsupportedModel: a tower of an unknown form, or one that the method cannot change.
    """
    sizes = tower_sizes(config)
    if sizes.mixes and pruner.merges_in_tower:
        raise UnsupportedModel(
            f"{pruner.name} merges tokens between the tower's layers; a {config.model_type} mixes them on their grid there."
        )
    side, full = math.isqrt(sizes.patches), config.vision_config.image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _narrow(sizes, side)
        ids = torch.tensor([[IMAGE] * sizes.patches + [1]])
        with pruner(model) as trace:
            model(input_ids=ids, pixel_values=torch.randn(1, 3, side, side), logits_to_keep=1, use_cache=False)
    ran, left = trace.tower, int(trace.visual_in[0])
    assert ran is not None
    spent = views * sum(trace.scoring_macs) * (sizes.width // sizes.heads) // WIDTH
    pixels = round(full * ran.pixels[0] / side), round(full * ran.pixels[1] / side)
    counts = TowerCounts(views, pixels, ran.attended, ran.fed, ran.projected)
    return round(visual_tokens * left / sizes.patches), spent, counts


def _narrow(sizes: TowerSizes, side: int) -> torch.nn.Module:
    """A model of one decoder layer whose tower has these layers, and side × side patches of one pixel."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    narrow: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 1}
    view: dict[str, Any] = {"image_size": side, "patch_size": 1, "num_hidden_layers": sizes.layers}
    tower = CLIPVisionConfig(**narrow, **view) if sizes.has_cls else SiglipVisionConfig(**narrow, **view, vision_use_head=False)
    text: dict[str, Any] = {"vocab_size": 4, "num_hidden_layers": 1, "max_position_embeddings": sizes.tokens + 1}
    config = LlavaConfig(
        vision_config=tower,
        text_config=LlamaConfig(**narrow, **text, pad_token_id=0, bos_token_id=None, eos_token_id=None),
        image_token_index=IMAGE,
        vision_feature_layer=sizes.feature_layer - sizes.layers,
        vision_feature_select_strategy="default" if sizes.has_cls else "full",
    )
    return LlavaForConditionalGeneration(config).eval()
