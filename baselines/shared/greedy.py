"""Greedy choices: tokens that together cover most, or span the largest volume."""

import torch

from baselines.shared.padded import first_picks

RANK = 1e-5
"""What a token adds counts as nothing below this share of the most that one adds by itself: features of float32 end there."""

TIE = 1e-9
"""Tokens tie where what they add differs by less, as a share of the same: of duplicates, the first is taken."""


def most_covering(cover: torch.Tensor, weight: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The patch of highest gain is next: what it covers beyond the patches chosen, summed over all that is to be covered.

    Args:
        cover: float32 (views, m, P): how well each patch covers each of m things; a row of zeros counts for nothing.
        weight: (views, P), the factor of each patch's gain.
        there: bool (views, P): patches that may be chosen.
        keep: LongTensor (views,): number of patches to choose, at most those that may be.

    Returns:
        bool (views, P).
    """
    covered = cover.new_zeros(cover.shape[:2])
    closed = torch.zeros_like(weight, dtype=cover.dtype).masked_fill(~there, -torch.inf)
    views, picks, more = torch.arange(len(there), device=there.device), [], torch.empty_like(cover)
    for _ in range(int(keep.max())):
        torch.sub(cover, covered[..., None], out=more).clamp_(min=0)
        best = torch.addcmul(closed, more.sum(1), weight).argmax(1)
        closed.scatter_(1, best[:, None], -torch.inf)
        covered = torch.maximum(covered, cover[views, :, best])
        picks.append(best)
    return first_picks(picks, keep, there.shape[1])


def most_diverse(features: torch.Tensor, weight: torch.Tensor, present: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Fast greedy maximum-a-posteriori inference (Chen, Zhang and Zhou 2018, arXiv 1709.05135), by a growing Cholesky factor.

    The kernel of tokens i and j is weight_i · cos(i, j) · weight_j. The token that multiplies the determinant of the chosen
    tokens' kernel by most is next. Where none adds anything, the features' rank being used up, tokens follow by weight. In
    float64: what is left of a token after many others is a difference of nearly equal numbers.

    Args:
        features: (batch, n, d).
        weight: (batch, n), not negative.
        present: bool (batch, n): tokens that may be chosen.
        keep: LongTensor (batch,): number of tokens to choose, at most those present.

    Returns:
        bool (batch, n).
    """
    weight = weight.double().masked_fill(~present, 0)
    weight = weight / weight.amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    rows = torch.nn.functional.normalize(features.double(), dim=-1) * weight[..., None]
    kernel, left = rows @ rows.transpose(1, 2), weight**2
    last = left - 2  # in [-2, -1], below whatever is left
    closed = torch.zeros_like(left).masked_fill(~present, -torch.inf)
    samples, picks = torch.arange(len(kernel), device=kernel.device), []
    factor = kernel.new_zeros(len(kernel), int(keep.max()), kernel.shape[1])
    for step in range(factor.shape[1]):
        gain = torch.where(left > RANK, left, last) + closed
        best = (gain >= gain.amax(1, keepdim=True) - TIE).byte().argmax(1)
        row = kernel[samples, best]
        if step:
            before = factor[:, :step]
            row = row - (before[samples, :, best][:, None] @ before)[:, 0]
        added = left[samples, best][:, None]
        row = torch.where(added > RANK, row / added.clamp(min=RANK).sqrt(), 0)
        factor[:, step] = row
        left = left - row**2
        closed.scatter_(1, best[:, None], -torch.inf)
        picks.append(best)
    return first_picks(picks, keep, kernel.shape[1])


def volume_macs(count: torch.Tensor | int, keep: torch.Tensor | int) -> torch.Tensor | int:
    """Multiply-accumulates of `most_diverse` for `keep` of `count` tokens, the kernel left out."""
    return count * keep * (keep - 1) // 2
