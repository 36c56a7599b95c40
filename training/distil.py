"""Teaching a tower to give the features that a trained model's tower gives, wherever it sees the same thing; or a projector
to make the same visual tokens of other features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.scenes import draw
from training.batches import Batch
from training.family import Family
from training.llava import Llava
from training.views import NOTHING


class Distillation(nn.Module):
    """The loss of a tower whose features are to be those of `teacher`, a LLaVA that sees the same scenes at 96×96, patch by
    patch: that of a picture without characters where these are illegible. Without `tower`, of a projector alone.

    Features are compared by their squared distance, channels scaled to unit variance, before and after the projector, and
    patches with characters, patches with things, and all of them count alike.
    """

    def __init__(self, family: Family, student: Any, teacher: Any, tower: bool = True) -> None:
        super().__init__()
        self.tower = tower
        self._parts = (family, student, teacher.eval())

    def forward(self, patches: Tensor, summary: Tensor | None, batch: Batch) -> tuple[Tensor, float]:
        """Loss, and the share of patches with characters for which both models' projectors say the same word."""
        family, student, teacher = self._parts
        views, device = family.views(batch.canvas), patches.device
        shows = views.patch < NOTHING
        with torch.no_grad():
            target = self._taught(teacher, batch, text=True)[:, views.patch[shows]]
            characters = torch.from_numpy(np.stack([draw.patch_labels(scene)["character"].ravel() for scene in batch.scenes]))
            written = (characters.to(device) > 0)[:, views.patch[shows]]
            reads = torch.from_numpy(views.reads[shows]).to(device)
            if not views.reads[shows].all():
                bare = self._taught(teacher, batch, text=False)[:, views.patch[shows]]
                target = torch.where((written & ~reads)[:, :, None], bare, target)
            words = teacher.model.multi_modal_projector(target)
        said = student.model.multi_modal_projector(patches)
        masks = (written & reads, batch.labels["shape"][:, torch.from_numpy(shows).to(device)] > 0, torch.ones_like(written))
        loss = patches.new_zeros(())
        for ours, theirs in [(patches, target)] * self.tower + [(said, words)]:
            distance = ((ours - theirs) ** 2 / theirs.flatten(0, 1).var(dim=0)).mean(dim=2)
            loss = loss + sum((distance * mask).sum() / mask.sum().clamp(min=1) for mask in masks)
        with torch.no_grad():
            same = teacher.lm_head(said).argmax(2) == teacher.lm_head(words).argmax(2)
        return loss, same[masks[0]].float().mean().item()

    def _taught(self, teacher: Any, batch: Batch, text: bool) -> Tensor:
        pictures = np.stack([draw.pixels(scene, text=text) for scene in batch.scenes])
        llava = Llava()
        return llava.features(teacher, llava.pixel_values(pictures).to(batch.pixels.device), (1, 1))[0].float()
