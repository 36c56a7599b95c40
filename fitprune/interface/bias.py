"""`AttentionBias`: what a method adds to the logits of the decoder's attention."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AttentionBias:
    """What is added to the logits of a layer's attention before their softmax, the same for all heads.

    Attributes:
        keys: float (batch, n): for each visual token present as a key, of the prompt's queries and of all that come later; 0
            in padding columns.
        pairs: float (batch, T, T): for each query (second axis) and key of the prompt; None for nothing. Queries that come
            later have none.
    """

    keys: torch.Tensor
    pairs: torch.Tensor | None = None
