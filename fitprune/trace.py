"""What a pruner did in the latest prefill."""

from dataclasses import dataclass, field

import torch


@dataclass
class Trace:
    """Filled by the latest prefill inside a pruner's context; empty before the first.

    Lists have one entry per decoder layer; tensors lie on the model's device.

    Attributes:
        kept: `kept[l]` is a LongTensor (batch, kept): the indices, among the prompt's n visual tokens (0 … n-1, in prompt
            order), of those present after layer l, ascending; rows padded with -1 on the right where counts differ.
            Tokens that the pruner may not drop, the newlines of tiled models, have no index: see `Pruner.newlines`.
        place: LongTensor (batch, n): where in the prompt, padding counted, each visual token stood; padded with -1.
        visual_tokens: (batch,) visual tokens in the prompt.
        text_tokens: (batch,) the prompt's other tokens, newlines among them, padding not counted.
        visual_in: `visual_in[l]`, (batch,): visual tokens that enter layer l; its KV cache holds these.
        visual_out: `visual_out[l]`, (batch,): those that take part in layer l's output projection and feed-forward network.
        scoring_macs: multiply-accumulates that the pruner spent on scoring in each layer, as computed for the whole batch.
    """

    kept: list[torch.Tensor] = field(default_factory=list)
    place: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.long))
    visual_tokens: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    text_tokens: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    visual_in: list[torch.Tensor] = field(default_factory=list)
    visual_out: list[torch.Tensor] = field(default_factory=list)
    scoring_macs: list[int] = field(default_factory=list)

    def start(self, visual_tokens: torch.Tensor, text_tokens: torch.Tensor, place: torch.Tensor) -> None:
        """Forget the previous prefill; counts are (batch,), `place` is (batch, n)."""
        self.visual_tokens, self.text_tokens, self.place = visual_tokens, text_tokens, place
        self.kept, self.visual_in, self.visual_out, self.scoring_macs = [], [], [], []
