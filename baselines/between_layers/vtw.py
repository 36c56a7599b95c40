"""VTW: all visual tokens are withdrawn at one layer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared.budget import nearest_choice
from baselines.shared.stages import OF_LAYERS, scaled_stages
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.execution import execution_device
from fitprune.models.parts import model_parts, visual_mask
from fitprune.models.sizes import DecoderSizes

# The authors search from this layer of 32 (and of 40) on.
FIRST_LAYER = 5


def divergence(full: torch.Tensor, withdrawn: torch.Tensor) -> torch.Tensor:
    """KL(withdrawn ‖ full) of the next token's distributions, in nats: float64 (batch,) from logits (batch, vocabulary).

    The authors' code computes the divergence in this direction, and their thresholds are for it.
    """
    full, withdrawn = full.double().log_softmax(-1), withdrawn.double().log_softmax(-1)
    return (withdrawn.exp() * (withdrawn - full)).sum(-1)


@dataclass
class VTW(Pruner):
    """Visual Tokens Withdrawal (Lin et al. 2024, arXiv 2405.05803; code github.com/lzhxmu/VTW), training-free.

    All visual tokens leave before layer K. Position ids kept, the authors' default. Stage: between decoder layers. Needs
    neither attention nor [CLS].

    `calibrate` finds K as the authors do: the first layer, from 5 on, at which the withdrawal moves the distribution of the
    first answer token by at most eta, in the mean over some 20 samples. The authors' eta is 0.003 for LLaVA-1.5-7B, 0.0005
    for 13B and 0.0001 for LLaVA-1.6-7B. Their code's default is K = 15.

    Deviations:

    - All images of a prompt are withdrawn. The authors' code takes one image.
    - `calibrate` stops at the first layer that is good enough, which changes no K.

    Attributes:
        k: the first layer without visual tokens, at least 1.
    """

    name: ClassVar[str] = "vtw"
    text_degree = 0
    k: int = 15

    def __post_init__(self) -> None:
        if self.k < 1:
            raise FitPruneError(f"VTW shows the image to at least one layer, so K must be at least 1, not {self.k}.")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        layers = len(model_parts(model).layers)
        if self.k >= layers:
            raise FitPruneError(f"VTW with K={self.k} withdraws nothing in a decoder of {layers} layers.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        return torch.zeros_like(tokens.present) if layer == self.k else None

    @classmethod
    def calibrate(
        cls,
        model: nn.Module,
        batches: Iterable[Mapping[str, torch.Tensor]],
        eta: float = 0.003,
        *,
        first: int | None = None,
    ) -> "VTW":
        """Find the smallest K, from `first` on, whose mean divergence over the samples is at most `eta`.

        Args:
            model: a vision-language model with weights.
            batches: processor outputs (dicts of tensors), any batch size and padding, every sample with an image. The authors
                take 20 samples. The model runs them once unpruned, and once for each K that is tried.
            eta: the threshold in nats.
            first: the first K to try. By default the authors' 5; in a decoder of fewer than 32 layers 5/32 of these,
                rounded, at least 1.

        Raises:
            FitPruneError: no samples, a sample without an image, or no layer within `eta` (the message names the least
                divergence).
        """
        layers = len(model_parts(model).layers)
        if first is None:
            (first,) = scaled_stages((FIRST_LAYER,), min(layers, OF_LAYERS))
        if not 1 <= first < layers:
            raise FitPruneError(f"the search for K must start at a layer from 1 to {layers - 1}, not {first}.")
        batches = list(batches)
        full = [_last_logits(model, batch) for batch in batches]
        samples = sum(len(logits) for logits in full)
        if samples == 0:
            raise FitPruneError("no calibration samples were given; VTW's K needs some 20.")
        if not all(bool(_has_image(model, batch).all()) for batch in batches):
            raise FitPruneError("a calibration sample has no visual tokens; every sample needs an image.")
        least = (float("inf"), first)
        for k in range(first, layers):
            with cls(k=k)(model):
                moved = [divergence(dense, _last_logits(model, batch)) for dense, batch in zip(full, batches, strict=True)]
            mean = float(torch.cat(moved).sum()) / samples
            if mean <= eta:
                return cls(k=k)
            least = min(least, (mean, k))
        raise FitPruneError(f"no K moves the answers by {eta:g} nats or less; the least is {least[0]:.3g}, at K={least[1]}.")

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "VTW":
        """Solve K for a FLOPs budget. K saves in steps of a layer's share, and needs no scoring."""
        layers = DecoderSizes.of(model_config).layers

        def entering(n: int, k: int) -> list[int]:
            return [n] * k + [0] * (layers - k)

        _, k = nearest_choice("VTW", model_config, reduction, visual_tokens, range(1, layers), entering)
        return cls(k=k)


@torch.no_grad()
def _last_logits(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The logits (batch, vocabulary) after each sample's last real token."""
    device = execution_device(model.get_input_embeddings())
    inputs = {
        name: value.to(device, model.dtype if value.is_floating_point() else None)
        for name, value in batch.items()
        if name != "labels"
    }
    mask = inputs.get("attention_mask")
    if mask is None or bool(mask[:, -1].all()):
        return model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
    logits = model(**inputs, use_cache=False).logits
    # A pruned sequence is shorter, so the last real row is counted from the end.
    last = logits.shape[1] - 1 - mask.flip(1).long().argmax(1).to(logits.device)
    return logits[torch.arange(len(last), device=last.device), last]


def _has_image(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Bool (batch,): which samples have visual tokens."""
    return visual_mask(model_parts(model), dict(batch)).any(1)
