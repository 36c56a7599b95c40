"""FasterVLM: the visual tokens stay that the vision tower's [CLS] attends to most."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from baselines.shared.counts import check_counts, share
from baselines.shared.tower_attention import ReadsTowerLayer, dropped_after_tower, salience_macs
from fitprune.interface.tokens import VisualTokens


@dataclass
class FasterVLM(ReadsTowerLayer):
    """FasterVLM (Zhang et al. 2024, arXiv 2412.01818 v1; code github.com/Theia-4869/FasterVLM), training-free.

    The `visual_token_num` visual tokens stay that receive most of the head-mean attention of [CLS] in the tower layer whose
    output the model reads. They stand in prompt order, position ids repacked. Stage: between projector and decoder. Needs one
    row of the tower's attention, computed beside SDPA.

    Deviations:

    - On tiled models, the authors keep the same number of tokens of every view. Here the prompt's views are one pool; each
      token's score is the attention of its own view's [CLS].
    - In a tower without [CLS], tokens are ranked by the mean attention they receive, as the authors advise
      (github.com/Theia-4869/VisPruner, issue 1).

    Attributes:
        visual_token_num: tokens that stay, of `visual_tokens`. The authors have no default; 144 is their example of 75 %.
        layer: tower layer whose attention ranks, negative from the end (authors': -2, the layer whose output is read).
        visual_tokens: the number of visual tokens that the count refers to. Other prompts keep the same share.
    """

    name: ClassVar[str] = "fastervlm"
    visual_token_num: int = 144
    layer: int = -2
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("FasterVLM", {"visual_token_num": self.visual_token_num}, self.visual_tokens)

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        score = tokens.vision.of_patches(tokens.vision.salience(self.layer))
        return tokens.keep_highest(score, share(tokens.total, self.visual_token_num, self.visual_tokens))

    @classmethod
    def for_reduction(
        cls, model_config: object, reduction: float, *, visual_tokens: int | None = None, layer: int = -2
    ) -> "FasterVLM":
        """Solve `visual_token_num` for a FLOPs budget, the attention row included."""

        def scoring(n: int, dropped: int) -> int:
            return salience_macs(model_config, n)

        n, dropped = dropped_after_tower("FasterVLM", model_config, reduction, visual_tokens, scoring)
        return cls(visual_token_num=n - dropped, layer=layer, visual_tokens=n)
