"""VidCom²: of a video, the tokens stay that are least like the mean of their frame and of the video, more of rarer frames."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from baselines.shared.budget import dropped_before_decoder
from baselines.shared.repacked import RepackedWherePossible
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
TEMPERATURE = 0.01


@dataclass
class VidCom2(RepackedWherePossible):
    """Video Compression Commander (Liu et al., EMNLP 2025, arXiv 2505.14454; code github.com/xuyang-liu16/VidCom2),
    training-free.

    Tokens are compared in that half of the projected embedding's channels whose variance over the video is lowest, as unit
    vectors there. A token's likeness to a centre at the squared distance d² is the sum of exp(−d²/2a) over the five widths a =
    1/8, 1/4, 1/2, 1, 2; the centres are the means of its video and of its frame. A frame's uniqueness is minus the mean
    likeness of its tokens to the video. Of a frame of p tokens in a video of F frames, p·base_scale·(1 + u − 1/F) stay,
    rounded, at least one and at most p: u is the softmax of uniqueness over frames at a temperature of 0.01. Those stay whose
    two likenesses add up to least. Every video is pruned by itself, and images beside one stay whole. Survivors stand in prompt
    order. Stage: before the decoder. Needs videos, and neither attention nor [CLS]. A prompt with images alone is refused: the
    authors prune none.

    The paper has neither the choice of channels nor the sum of widths, and compares by cosine. The authors' code, as here, is
    what their figures come from. Near one, the softmax gives one frame almost twice its share and all others the same, so that
    budgets hardly differ; what that frame cannot use at a base_scale above 1/2 is lost. `exact` gives it to the tokens of least
    likeness in the video.

    Deviations:

    - Likeness is float32 (the authors': the model's half precision, in which the softmax at 0.01 is coarse).
    - The authors' code prunes batches of one, and passes larger ones on unpruned.
    - Position ids are numbered anew, as the authors' on LLaVA-OneVision. On three axes they are kept, as theirs on Qwen's.
    - On Qwen3-VL, vLLM's variant compares the features of DeepStack as well. Here, as in the authors' code, the projected
      embedding is compared.

    Attributes:
        base_scale: share of a video's tokens to keep, above 0 and up to 1 (authors' 0.25).
        exact: whether exactly int(n·base_scale) of a video's n tokens stay, at least one per frame, as vLLM serves it: too many
            or too few by the rule are made up for by those of most, or least, likeness. The authors' code does not. A FLOPs
            budget needs it.
    """

    name: ClassVar[str] = "vidcom2"
    videos: ClassVar[bool] = True
    base_scale: float = 0.25
    exact: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.base_scale <= 1:
            raise FitPruneError(f"base_scale is a share of a video's tokens, above 0 and up to 1, not {self.base_scale}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        stays, features = tokens.present.clone(), tokens.features
        for videos in tokens.videos:
            frames = videos.of(features).float()
            tokens.spend(2 * frames[..., : frames.shape[-1] // 2].numel())
            videos.put(stays, self._chosen(*likeness(frames)))
        return stays

    def _chosen(self, to_video: torch.Tensor, to_frame: torch.Tensor) -> torch.Tensor:
        """Bool (videos, frames, tokens): which stay, by their likeness to their video and to their frame, of this shape."""
        count, size = to_video.shape[1:]
        share = functional.softmax(-to_video.mean(2) / TEMPERATURE, dim=1)
        scale = (self.base_scale * (1 + share - 1 / count)).clamp(max=1)
        budget = (scale * size).round().clamp(min=1)
        alike = (to_video + to_frame).double()
        rank = alike.argsort(dim=2, stable=True).argsort(dim=2)
        chosen = rank < budget[..., None]
        if not self.exact:
            return chosen
        # Likeness is at most 10: all that the rule chooses stand before all others.
        order = (
            (alike - 16 * chosen).flatten(1).argsort(dim=1, stable=True)[:, : max(count, int(count * size * self.base_scale))]
        )
        return torch.zeros_like(chosen.flatten(1)).scatter(1, order, True).view(chosen.shape)

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "VidCom2":
        """Solve `base_scale` for a FLOPs budget, the distances included; `exact`, since the rule alone misses it.

        How many frames a video has is not known here: one with many saves less where one token of each is more than may stay.
        """

        def scoring(n: int, dropped: int) -> int:
            return 2 * n * (DecoderSizes.of(model_config).hidden_size // 2)

        n, dropped = dropped_before_decoder("VidCom2", model_config, reduction, visual_tokens, scoring, fewest=1)
        # Half a token more than stays: rounding of the product must not cost one.
        keep = n - min(dropped, n - 1)
        return cls((keep + 0.5) / n, exact=True, positions=cls.own_positions(model_config))


def likeness(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeness, (videos, frames, tokens) each, of the tokens of videos (videos, frames, tokens, d) to their video's centre
    and to their frame's."""
    width = frames.shape[-1] // 2
    steady = frames.var((1, 2), unbiased=False).topk(width, largest=False).indices
    unit = functional.normalize(frames.gather(3, steady[:, None, None].expand(*frames.shape[:3], width)), dim=-1)
    return _alike(unit, unit.mean((1, 2), keepdim=True)), _alike(unit, unit.mean(2, keepdim=True))


def _alike(unit: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    distance = ((unit - centre) ** 2).sum(-1)
    return torch.stack([torch.exp(distance / (-2 * width)) for width in WIDTHS]).sum(0)
