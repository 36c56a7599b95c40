"""A CLIP's contrastive loss: captions of scenes, a small text tower that reads them, and both towers as a `CLIPModel`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import processors
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from harness.scenes.world import CELLS, Scene
from training.tokenizer import BOS, build

END = "<|endoftext|>"
NAMED = 4
"""Things that a caption names at most."""
LONGEST = 64


def caption(scene: Scene) -> str:
    """Names one to four things of a scene, where they are, and what is written under them; the same for the same scene."""
    rng = Random(scene.seed * 2 + 1)
    things = rng.sample(list(scene.things), rng.randint(1, min(NAMED, len(scene.things))))
    return "".join(
        f" {thing.color} {thing.shape} in the {CELLS[thing.cell]}" + (f' "{thing.text}"' if thing.text else "")
        for thing in things
    )


def caption_tokenizer() -> PreTrainedTokenizerFast:
    """The embedded models' tokenizer with an end token of its own, whose state sums a caption up, as CLIP's has: id 2, which
    the models' end of an answer has, means something else to `CLIPTextModel`.
    """
    tokenizer = build()
    tokenizer.add_special_tokens({"eos_token": END})
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (BOS, END)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {END}", special_tokens=ends)
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = LONGEST
    return tokenizer


class Contrast(nn.Module):
    """The text tower, both projections and the temperature (Radford et al., 2021)."""

    def __init__(self, width: int, layers: int = 2) -> None:
        super().__init__()
        self.tokenizer = caption_tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=LONGEST,
            hidden_act="gelu",
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.text = CLIPTextModelWithProjection(config)
        self.visual_projection = nn.Linear(width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, summary: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """The loss of telling each scene's caption from the others', and each caption's scene, with the tower's `summary`,
        float (images, width).
        """
        inputs = self.tokenizer([caption(scene) for scene in scenes], padding=True, return_tensors="pt").to(summary.device)
        words = F.normalize(self.text(**inputs).text_embeds.float(), dim=1)
        pictures = F.normalize(self.visual_projection(summary), dim=1)
        scores = self.logit_scale.exp().clamp(max=100) * pictures @ words.T
        own = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    def clip(self, tower: nn.Module) -> CLIPModel:
        """The tower, a `CLIPVisionModel`, and its text tower in one stock model."""
        config = CLIPConfig(
            text_config=self.text.config.to_dict(),
            vision_config=tower.config.to_dict(),  # type: ignore[union-attr, operator]
            projection_dim=self.text.config.projection_dim,
        )
        model = CLIPModel(config)
        vision = {f"vision_model.{name.removeprefix('vision_model.')}": value for name, value in tower.state_dict().items()}
        ours = {name.removeprefix("text."): value for name, value in self.state_dict().items()}
        model.load_state_dict({**vision, **ours})
        return model.eval()

    def save(self, tower: nn.Module, folder: Path) -> None:
        """Writes the `CLIPModel`, in bfloat16, and the tokenizer of captions."""
        model = self.clip(tower)
        weights = {name: value.to(torch.bfloat16).clone() for name, value in model.state_dict().items()}
        model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)
