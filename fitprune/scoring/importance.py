"""FitPrune's two importances of a visual token: its cross attention and its self attention."""

from typing import Any, Protocol

import torch


class Tokens(Protocol):
    """What the importances need of `fitprune.interface.tokens.VisualTokens`."""

    @property
    def text_after(self) -> torch.Tensor: ...

    @property
    def present(self) -> torch.Tensor: ...

    def row_mask(self) -> torch.Tensor: ...


class Columns(Protocol):
    """What the importances need of `fitprune.interface.attention.Attention`."""

    def head_max_columns(self, tokens: Any, row_weights: torch.Tensor) -> torch.Tensor: ...


def cross_and_self(tokens: Tokens, attention: Columns) -> tuple[torch.Tensor, torch.Tensor]:
    """The two importances of FitPrune for each visual token present, float32 (batch, n), 0 in padding places.

    With M[q, j] the head-wise maximum of the layer's softmax attention:
    cross[j] is the mean of M[q, j] over text rows q after the image; self[j] is the sum of M[q, j] over visual rows q,
    divided by the number of visual tokens present. Rows of the system prompt never count. In a sample without text
    after its last visual token, cross is 1 for every token, so that self alone decides.

    Several images in one prompt form one pool: "after the image" is after the last of them, and text between them is
    not counted.
    """
    text, visual = tokens.text_after.float(), tokens.row_mask().float()
    weights = torch.stack([text / text.sum(1, True).clamp(min=1), visual / visual.sum(1, True).clamp(min=1)], 1)
    cross, own = attention.head_max_columns(tokens, weights).unbind(1)
    return torch.where(tokens.text_after.any(1, keepdim=True), cross, tokens.present.float()), own
