"""EVS: of a video, the first frame stays, and of the others what changes most from the frame before, as vLLM serves it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from baselines.shared.budget import dropped_before_decoder
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes


@dataclass
class EVS(Pruner):
    """Efficient Video Sampling (Bagrov et al., arXiv 2510.14624; code by its authors in vLLM, vllm/multimodal/evs.py),
    training-free.

    A token's change is one minus the cosine of its projected embedding to that at the same place of the frame before. Of a
    video of n tokens, int(n·(1 − video_pruning_rate)) stay, but at least one frame's: all of the first frame, and of the
    others those that change most, of equals the earlier. Every video is pruned by itself, and images beside one stay whole.
    Survivors keep their position ids. Stage: before the decoder. Needs videos, and neither attention nor [CLS]. A prompt with
    images alone is refused: of a single frame the rule drops nothing.

    Deviations:

    - Cosines are float32 (vLLM's: the model's half precision).
    - On Qwen3-VL, vLLM compares tokens by the projected embedding and the features of DeepStack in one long vector. Here it is
      the projected embedding, as in the paper and on other models.
    - In vLLM, at Qwen2.5-VL, the text behind a video is numbered from the video's first position plus the width of its grid,
      so that it may stand before the video's last frames. Here it keeps the position ids of the unpruned prompt.
    - vLLM serves no LLaVA-OneVision. Its frames are compared as they are given to the decoder, pooled.

    Attributes:
        video_pruning_rate: share of a video's tokens to drop, at least 0 and below 1 (vLLM has no default; 0.7 is that of the
            checkpoints that are served with EVS).
    """

    name: ClassVar[str] = "evs"
    videos: ClassVar[bool] = True
    video_pruning_rate: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.video_pruning_rate < 1:
            raise FitPruneError(
                f"video_pruning_rate is a share of a video's tokens, from 0 to below 1, not {self.video_pruning_rate}."
            )

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        stays, features = tokens.present.clone(), tokens.features
        for videos in tokens.videos:
            frames = videos.of(features).float()
            change = 1 - functional.cosine_similarity(frames[:, 1:], frames[:, :-1], dim=-1)
            tokens.spend(change.numel() * features.shape[-1])
            first, size = frames.shape[2], frames.shape[1] * frames.shape[2]
            more = max(first, int(size * (1 - self.video_pruning_rate))) - first
            most = change.flatten(1).argsort(dim=1, descending=True, stable=True)[:, :more]
            chosen = torch.ones(frames.shape[:3], dtype=torch.bool, device=frames.device)
            chosen[:, 1:] = torch.zeros_like(change.flatten(1), dtype=torch.bool).scatter(1, most, True).view(change.shape)
            videos.put(stays, chosen)
        return stays

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "EVS":
        """Solve `video_pruning_rate` for a FLOPs budget, the cosines included.

        How many frames a video has is not known here: one with few saves less where its first frame is more than may stay.
        """

        def scoring(n: int, dropped: int) -> int:
            return n * DecoderSizes.of(model_config).hidden_size

        n, dropped = dropped_before_decoder("EVS", model_config, reduction, visual_tokens, scoring, fewest=1)
        # Half a token less than is dropped: rounding in 1 - rate must not cost one more.
        return cls((min(dropped, n - 1) - 0.5) / n)
