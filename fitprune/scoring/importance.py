"""FitPrune's two importances of a visual token: its cross attention and its self attention."""

from typing import Any, Protocol

import torch


class Tokens(Protocol):
    """What the importances need of `fitprune.interface.tokens.VisualTokens`."""

    @property
    def roles(self) -> torch.Tensor: ...

    @property
    def present(self) -> torch.Tensor: ...

    @property
    def lacks_text(self) -> bool: ...


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
    roles = tokens.roles
    found = attention.head_max_columns(tokens, roles / roles.sum(2, keepdim=True, dtype=torch.float32).clamp(min=1))
    cross, own = found[:, 0], found[:, 1]
    if tokens.lacks_text:
        cross = torch.where(roles[:, 0].any(1, keepdim=True), cross, tokens.present.float())
    return cross, own
