"""What a suite's questions cost: every batch's token counts, put together when the suite is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fitprune import Trace
from harness.cost.flops import count_from_tokens, token_counts, visual_macs
from harness.cost.vision import VisionCost, vision_cost


@dataclass(frozen=True)
class BatchCost:
    """What a batch cost, as counts that JSON can hold.

    Attributes:
        text, visual, new: per question, the prompt's text tokens, its visual tokens before pruning, the tokens generated.
        visual_in, visual_out: per decoder layer and question, as in `fitprune.Trace`.
        vision, projector: multiply-accumulates of the images by operator.
    """

    text: list[int]
    visual: list[int]
    new: list[int]
    visual_in: list[list[int]]
    visual_out: list[list[int]]
    scoring_macs: int
    vision: Mapping[str, int]
    projector: Mapping[str, int]


def batch_cost(config: Any, inputs: Mapping[str, torch.Tensor], trace: Trace | None, new_tokens: list[int]) -> BatchCost:
    """The cost of a batch on a model with this transformers configuration. Without a trace nothing was pruned."""
    text, visual, entering, leaving, scoring = token_counts(config, inputs, trace)
    images = vision_cost(config, inputs, None if trace is None else trace.tower)
    return BatchCost(
        text.tolist(),
        visual.tolist(),
        new_tokens,
        [layer.tolist() for layer in entering],
        [layer.tolist() for layer in leaving],
        scoring,
        dict(images.vision),
        dict(images.projector),
    )


@dataclass
class Tally:
    """The cost of all batches together: `add` each, then read `flops` and `reduction`.

    Only sums are kept, which are whole numbers, and so the same in whatever batches the questions came.

    Attributes:
        config: the model's transformers configuration.
        samples: questions.
        total: FLOPs end to end.
        spent, dense: multiply-accumulates on visual tokens in the decoder, scoring paid for, and without pruning.
        left: per decoder layer, visual tokens after it.
    """

    config: Any
    samples: int = 0
    total: int = 0
    spent: int = 0
    dense: int = 0
    left: list[int] = field(default_factory=list)

    def add(self, cost: BatchCost) -> None:
        """Add a batch."""
        text_config, scoring = self.config.get_text_config(), cost.scoring_macs
        images = VisionCost(cost.vision, cost.projector)
        layers = cost.visual_in, cost.visual_out
        counted = count_from_tokens(self.config, cost.text, *layers, cost.new, vision=images, scoring_macs=scoring)
        full = [cost.visual] * text_config.num_hidden_layers
        self.samples += counted.samples
        self.total += counted.total
        self.spent += visual_macs(text_config, *layers) + scoring
        self.dense += visual_macs(text_config, full, full)
        left = [sum(layer) for layer in cost.visual_out]
        self.left = [before + now for before, now in zip(self.left or [0] * len(left), left, strict=True)]

    def flops(self) -> float:
        """End-to-end FLOPs, mean per question: tower, projector, prefill with the pruner's scoring, and the tokens
        really generated.
        """
        return self.total / self.samples

    def reduction(self) -> float:
        """Share of the visual tokens' decoder FLOPs that was saved, scoring paid for: the figure that `--reduction`
        asks for.
        """
        return 1.0 - self.spent / self.dense if self.dense else 0.0

    def tokens_per_layer(self) -> list[float]:
        """Visual tokens left after each decoder layer, mean over questions."""
        return [layer / self.samples for layer in self.left]
