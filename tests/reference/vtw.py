"""VTW, literally: no visual token from layer K on; and how far that moves the next token's distribution."""

import math

import torch


def rule(k):
    """The method for `between.run`."""
    return lambda reference, before: [] if before.layer == k else None


def divergence(full, withdrawn):
    """torch's KLDivLoss, as the authors call it, on log-softmax of `full` and softmax of `withdrawn`, lists of logits: the sum
    of target · (log target - input)."""
    p, q = (torch.softmax(torch.as_tensor(logits, dtype=torch.float64), 0).tolist() for logits in (full, withdrawn))
    return sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True))
