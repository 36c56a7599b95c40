"""What a suite's questions cost: every batch's token counts, put together when the suite is done."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.cost.flops import count_from_tokens, token_counts, visual_reduction
from harness.cost.vision import VisionCost, vision_cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fitprune import Trace


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
    vision: "Mapping[str, int]"
    projector: "Mapping[str, int]"


def batch_cost(config: Any, inputs: "Mapping[str, torch.Tensor]", trace: "Trace | None", new_tokens: list[int]) -> BatchCost:
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

    Attributes:
        config: the model's transformers configuration.
        text, visual, new, visual_in, visual_out, scoring_macs: as in `BatchCost`.
        images: what the images cost.
    """

    config: Any
    text: list[int] = field(default_factory=list)
    visual: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    visual_in: list[list[int]] = field(default_factory=list)
    visual_out: list[list[int]] = field(default_factory=list)
    scoring_macs: int = 0
    images: VisionCost = field(default_factory=VisionCost)

    def __post_init__(self) -> None:
        layers = self.config.get_text_config().num_hidden_layers
        self.visual_in = [[] for _ in range(layers)]
        self.visual_out = [[] for _ in range(layers)]

    def __call__(self, inputs: "Mapping[str, torch.Tensor]", trace: "Trace | None", new_tokens: list[int]) -> None:
        """Add a batch that was just generated."""
        self.add(batch_cost(self.config, inputs, trace, new_tokens))

    def add(self, cost: BatchCost) -> None:
        """Add a batch."""
        self.text += cost.text
        self.visual += cost.visual
        self.new += cost.new
        self.images += VisionCost(cost.vision, cost.projector)
        layers = [*cost.visual_in, *cost.visual_out]
        for total, layer in zip(self.visual_in + self.visual_out, layers, strict=True):
            total += layer
        self.scoring_macs += cost.scoring_macs

    def flops(self) -> float:
        """End-to-end FLOPs, mean per question: tower, projector, prefill with the pruner's scoring, and the tokens
        really generated.
        """
        counted = count_from_tokens(
            self.config,
            self.text,
            self.visual_in,
            self.visual_out,
            self.new,
            vision=self.images,
            scoring_macs=self.scoring_macs,
        )
        return counted.total / counted.samples

    def reduction(self) -> float:
        """Share of the visual tokens' decoder FLOPs that was saved, scoring paid for: the figure that `--reduction`
        asks for.
        """
        text_config = self.config.get_text_config()
        return visual_reduction(text_config, self.visual, self.visual_in, self.visual_out, self.scoring_macs)

    def tokens_per_layer(self) -> list[float]:
        """Visual tokens left after each decoder layer, mean over questions."""
        return [sum(layer) / len(layer) for layer in self.visual_out]
