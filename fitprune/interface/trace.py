"""`Trace`: what a pruner did in the latest prefill."""

from dataclasses import dataclass, field

import torch


@dataclass
class TowerCounts:
    """What ran in the vision tower, where a method changed it.

    Attributes:
        views: pictures that went through it; pixels: their height and width.
        attended, fed: per layer, tokens of a view that entered its attention, and its feed-forward network.
        projected: tokens of a view that went through the projector.
    """

    views: int
    pixels: tuple[int, int]
    attended: list[int]
    fed: list[int]
    projected: int


@dataclass
class Trace:
    """Filled by the latest prefill inside a pruner's context; empty before the first.

    Lists have one entry per decoder layer. All tensors lie on the device of the decoder's input, wherever its layers are.

    Attributes:
        kept: `kept[l]` is a LongTensor (batch, kept): the indices, among the prompt's n visual tokens (0 … n-1, in prompt
            order), of those present after layer l, ascending; rows padded with -1 on the right where counts differ.
            Tokens that the pruner may not drop, the newlines of tiled models, have no index: see `Pruner.newlines`. A merged
            token is reported under the index of the token it replaces; a row that stands for no single token is counted in
            `visual_in` only.
        place: LongTensor (batch, n): the position in the prompt, padding counted, of each visual token; padded with -1.
        visual_tokens: (batch,) visual tokens in the prompt.
        text_tokens: (batch,) the prompt's other tokens, newlines among them, padding not counted.
        visual_in: `visual_in[l]`, (batch,): visual tokens that enter layer l; its KV cache holds these.
        visual_out: `visual_out[l]`, (batch,): those that take part in layer l's output projection and feed-forward network.
        scoring_macs: multiply-accumulates that the pruner spent on scoring in each layer, for the whole batch; what it spent
            before the decoder is in the first.
        tower: what ran in the vision tower, where the pruner changed it; else None.
    """

    kept: list[torch.Tensor] = field(default_factory=list)
    place: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.long))
    visual_tokens: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    text_tokens: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    visual_in: list[torch.Tensor] = field(default_factory=list)
    visual_out: list[torch.Tensor] = field(default_factory=list)
    scoring_macs: list[int] = field(default_factory=list)
    tower: TowerCounts | None = None

    def start(self, visual_tokens: torch.Tensor, text_tokens: torch.Tensor, place: torch.Tensor) -> None:
        """Forget the previous prefill; counts are (batch,), `place` is (batch, n)."""
        self.visual_tokens, self.text_tokens, self.place = visual_tokens, text_tokens, place
        self.kept, self.visual_in, self.visual_out, self.scoring_macs, self.tower = [], [], [], [], None
