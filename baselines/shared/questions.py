"""Questions as methods take them that choose by words: without a task's closing instruction, in CLIP's space."""

from typing import Any

from torch import nn

from fitprune import UnsupportedModel
from fitprune.models.clip_text import ClipText
from fitprune.models.reader import require_reader

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
    return clip
