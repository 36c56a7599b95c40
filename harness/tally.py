"""What a suite's questions cost: every batch's token counts, put together when the suite is done."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.flop_counter import count_from_tokens, prompt_tokens, visual_reduction
from harness.flops_vision import VisionCost, vision_cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fitprune import Trace


@dataclass
class Tally:
    """An observer for `evaluate_cell`: call it with each batch's inputs, trace and new tokens; then read `flops`
    and `reduction`.

    Attributes:
        config: the model's transformers configuration.
        text, visual, new: per question, the prompt's text tokens, its visual tokens before pruning, the tokens generated.
        visual_in, visual_out: per decoder layer and question, as in `fitprune.Trace`.
        vision: what the images cost.
    """

    config: Any
    text: list[int] = field(default_factory=list)
    visual: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    visual_in: list[list[int]] = field(default_factory=list)
    visual_out: list[list[int]] = field(default_factory=list)
    scoring_macs: int = 0
    vision: VisionCost = field(default_factory=VisionCost)

    def __post_init__(self) -> None:
        layers = self.config.get_text_config().num_hidden_layers
        self.visual_in = [[] for _ in range(layers)]
        self.visual_out = [[] for _ in range(layers)]

    def __call__(self, inputs: "Mapping[str, torch.Tensor]", trace: "Trace | None", new_tokens: list[int]) -> None:
        """Add a batch. Without a trace nothing was pruned."""
        text, visual = prompt_tokens(self.config, inputs) if trace is None else (trace.text_tokens, trace.visual_tokens)
        self.text += text.tolist()
        self.visual += visual.tolist()
        self.new += new_tokens
        self.vision += vision_cost(self.config, inputs, None if trace is None else trace.tower)
        entering = [visual] * len(self.visual_in) if trace is None else trace.visual_in
        leaving = entering if trace is None else trace.visual_out
        for total, layer in zip(self.visual_in + self.visual_out, [*entering, *leaving], strict=True):
            total += layer.tolist()
        self.scoring_macs += 0 if trace is None else sum(trace.scoring_macs)

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
            vision=self.vision,
            scoring_macs=self.scoring_macs,
        )
        return counted.total / counted.samples

    def reduction(self) -> float:
        """Share of the visual tokens' decoder FLOPs that was saved, scoring paid for: the figure that `--reduction`
        asks for.
        """
        text_config = self.config.get_text_config()
        return visual_reduction(text_config, self.visual, self.visual_in, self.visual_out, self.scoring_macs)
