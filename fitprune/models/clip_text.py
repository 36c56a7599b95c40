"""`ClipText`: the text tower of a CLIP model, and the projections of text and of patches into the space that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fitprune.errors import FitPruneError


@dataclass
class ClipText:
    """CLIP's text tower, for patches of CLIP's own vision tower.

    Attributes:
        model: transformers' `CLIPModel`; of its vision tower only the last norm is used.
        tokenizer: CLIP's.
    """

    model: Any
    tokenizer: Any

    @classmethod
    def from_folder(cls, folder: Path, dtype: torch.dtype, device: torch.device | str) -> "ClipText":
        """Read it from a folder that holds a CLIP model and its tokenizer, as hub repositories do. Nothing is downloaded.

        Raises:
            FitPruneError: there is no such model, or it cannot be read.
        """
        from transformers import AutoTokenizer, CLIPModel

        try:
            model = CLIPModel.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise FitPruneError(f"{folder}: no CLIP model can be read here: {' '.join(str(error).split())[:200]}") from None
        model.vision_model.encoder = None  # the vision-language model has its own
        return cls(model.to(device), tokenizer)

    @torch.no_grad()
    def texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> tuple[torch.Tensor, int]:
        """Embeddings (texts, d) on `device` in float32, and the multiply-accumulates that they took.

        A text longer than the tower takes is cut, and keeps its end token.
        """
        sizes = self.model.config.text_config
        ids = [
            self.tokenizer(text, truncation=True, max_length=sizes.max_position_embeddings, return_tensors="pt")["input_ids"]
            for text in texts
        ]
        pooled = [self.model.text_model(input_ids=own.to(self.model.device)).pooler_output for own in ids]
        width, length = sizes.hidden_size, sum(own.shape[1] for own in ids)
        layer = length * (4 * width**2 + 2 * width * sizes.intermediate_size)
        attention = 2 * width * sum(own.shape[1] ** 2 for own in ids)
        found = self.model.text_projection(torch.cat(pooled)).float().to(device)
        return found, sizes.num_hidden_layers * (layer + attention) + found.numel() * width

    @torch.no_grad()
    def patches(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., width) of the vision tower in the shared space: (..., d), in float32 on their device."""
        states = features.to(self.model.device, self.model.dtype)
        return self.model.visual_projection(self.model.vision_model.post_layernorm(states)).float().to(features.device)

    @property
    def width(self) -> int:
        """Width of the vision tower whose patches it compares with."""
        return self.model.config.vision_config.hidden_size
