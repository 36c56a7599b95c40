"""Density-peak clustering of tokens in padded batches (DPC-KNN: Rodriguez and Laio 2014; Du et al. 2016)."""

import torch

from baselines.shared.padded import descending


def density_peaks(
    x: torch.Tensor, real: torch.Tensor, clusters: torch.Tensor, most: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Group each sample's tokens around its `clusters` peaks of density.

    The density of a token is exp(-m), where m is the mean squared distance to its k nearest tokens. The token itself is one
    of these, and k is the number of clusters. The separation of a token is its distance to the nearest denser token. Where no
    token is denser, it is the largest distance of the sample. The peaks are the tokens with the highest product of density
    and separation. Every other token joins the nearest peak. Of equal tokens, the earlier counts as the denser.

    Args:
        x: (batch, m, d), float.
        real: bool (batch, m), False in padding, which stands on the right.
        clusters: LongTensor (batch,), at most the number of real tokens; at least 1 where there are any.
        most: the largest of these; read from the device where it is not given.

    Returns:
        The indices of the peaks, LongTensor (batch, c), highest product first, padded with -1; and the group of each token,
        LongTensor (batch, m), the number of its peak among these, padded with -1.
    """
    _, m, width = x.shape
    infinite = float("inf")
    # Inner products would be faster, but their rounding errors are as large as the distances between near tokens.
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / width**0.5
    both = real[:, :, None] & real[:, None]
    most = int(clusters.max()) if most is None else most
    near = distance.masked_fill(~both, infinite).topk(most, dim=2, largest=False).values
    counted = torch.arange(most, device=x.device) < clusters[:, None]
    squares = (near**2).masked_fill(~counted[:, None] | ~real[..., None], 0).sum(2)
    density = (-squares / clusters.clamp(min=1)[:, None]).exp()
    index = torch.arange(m, device=x.device)
    denser = (density[:, None] > density[:, :, None]) | (
        (density[:, None] == density[:, :, None]) & (index[None] < index[:, None])
    )
    farthest = distance.masked_fill(~both, 0).amax((1, 2))
    apart = distance.masked_fill(~(denser & both), infinite).amin(2).minimum(farthest[:, None])
    peaks = descending(apart * density, real)[:, :most].masked_fill(~counted, -1)
    to_peaks = distance.gather(2, peaks.clamp(min=0)[:, None].expand(-1, m, -1)).masked_fill(~counted[:, None], infinite)
    is_peak = peaks[:, None] == index[:, None]
    group = to_peaks.masked_fill(is_peak, -1).argmin(2)
    return peaks, group.masked_fill(~real, -1)


def group_means(x: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """Means (batch, groups, d) of the tokens `x` (batch, m, d) of each group; zeros for an empty group.

    `group` is a LongTensor (batch, m), -1 for a token of no group.
    """
    members = (group[:, None] == torch.arange(groups, device=x.device)[:, None]).to(x.dtype)
    return members @ x / members.sum(2, keepdim=True).clamp(min=1)
