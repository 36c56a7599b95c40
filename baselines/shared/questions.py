"""Questions as methods take them that choose by words: without a task's closing instruction, in CLIP's space."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from baselines.shared.budget import TEXT_TOKENS
from fitprune import UnsupportedModel
from fitprune.interface.tokens import VisualTokens
from fitprune.models.clip_text import ClipText
from fitprune.models.reader import reader_of, require_reader
from fitprune.models.sizes import tower_sizes

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
"""What LLaVA's evaluation asks for after a question, and lmms-eval after it."""


def without(question: str, *closings: str) -> str:
    """The question with these closing instructions taken out."""
    for closing in closings:
        question = question.replace(closing, "")
    return question.strip()


def require_clip(model: nn.Module, pruner: Any) -> ClipText:
    """CLIP's text tower of the model. Raises a `FitPruneError` where there is none, or where it cannot be read."""
    clip = require_reader(model, pruner.name).clip()
    if clip is None:
        raise UnsupportedModel(
            f"{pruner.name} compares the question with the patches in CLIP's space, and no CLIP text tower is named for this "
            "model; take a LLaVA checkpoint from the hub, or cdpruner-embeddings."
        )
    width = tower_sizes(model.config).width
    if clip.width != width:
        raise UnsupportedModel(
            f"{pruner.name} needs the CLIP model that this vision tower is of: features here are {width} wide, those of the "
            f"CLIP model named for it {clip.width}."
        )
    return clip


def in_clip(tokens: VisualTokens, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches (views, P, d) and texts (batch, d), one per sample, in CLIP's space, in float32; counted as scoring."""
    assert tokens.parts is not None
    reader = reader_of(tokens.parts.parent)
    clip = reader.clip() if reader is not None else None
    assert clip is not None
    features = tokens.vision.features
    found, macs = clip.texts(texts, features.device)
    tokens.spend(macs, features.numel() * found.shape[1])
    return clip.patches(features), found


WIDTH, LAYERS = 768, 12
"""The text tower of CLIP ViT-L/14, which budgets assume. Its space is as wide."""


def text_macs() -> int:
    """Multiply-accumulates of the text tower on a short question."""
    layer = TEXT_TOKENS * 12 * WIDTH**2 + 2 * WIDTH * TEXT_TOKENS**2
    return LAYERS * layer + WIDTH**2


def clip_macs(model_config: Any, visual_tokens: int) -> int:
    """Multiply-accumulates of bringing a short question and the patches into CLIP's space, and of comparing them."""
    sizes = tower_sizes(model_config)
    views = -(-visual_tokens // sizes.patches)
    return text_macs() + views * sizes.patches * sizes.width * WIDTH + visual_tokens * WIDTH
