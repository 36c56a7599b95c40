"""Density-peak clustering of tokens, several samples at once (DPC-KNN: Rodriguez and Laio 2014; Du et al. 2016)."""

import torch


def density_peaks(x: torch.Tensor, real: torch.Tensor, clusters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Group each sample's tokens around its `clusters` peaks of density.

    A token's density is exp(-mean of the squared distances to its k nearest, itself among them), k the number of clusters;
    its distance is that to the nearest denser token, or the largest of all where none is denser. The peaks are the highest
    products of the two; every other token joins the nearest peak. Of equals the earlier one is the denser and the first.

    Args:
        x: (batch, m, d), float.
        real: bool (batch, m): False in padding, which stands on the right.
        clusters: LongTensor (batch,), at most as many as there are real tokens; at least 1 where there are any.

    Returns:
        Peaks, LongTensor (batch, c), padded with -1, highest product first; and the group of each token, its peak's place
        among these, LongTensor (batch, m), padded with -1.
    """
    _, m, width = x.shape
    infinite = float("inf")
    # Not by way of inner products, whose rounding is of the size of the distances between near tokens.
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / width**0.5
    both = real[:, :, None] & real[:, None]
    most = int(clusters.max())
    near = distance.masked_fill(~both, infinite).topk(most, dim=2, largest=False).values
    counted = torch.arange(most, device=x.device) < clusters[:, None]
    squares = (near**2).masked_fill(~counted[:, None] | ~real[..., None], 0).sum(2)
    density = (-squares / clusters.clamp(min=1)[:, None]).exp()
    place = torch.arange(m, device=x.device)
    denser = (density[:, None] > density[:, :, None]) | (
        (density[:, None] == density[:, :, None]) & (place[None] < place[:, None])
    )
    farthest = distance.masked_fill(~both, 0).amax((1, 2))
    apart = distance.masked_fill(~(denser & both), infinite).amin(2).minimum(farthest[:, None])
    order = (apart * density).masked_fill(~real, -infinite).argsort(dim=1, descending=True, stable=True)[:, :most]
    peaks = order.masked_fill(~counted, -1)
    to_peaks = distance.gather(2, peaks.clamp(min=0)[:, None].expand(-1, m, -1)).masked_fill(~counted[:, None], infinite)
    own = peaks[:, None] == place[:, None]
    group = to_peaks.masked_fill(own, -1).argmin(2)
    return peaks, group.masked_fill(~real, -1)


def group_means(x: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """Means (batch, groups, d) of the tokens `x` (batch, m, d) of each group, `group` LongTensor (batch, m), -1 for none; zeros
    for an empty group."""
    members = (group[:, None] == torch.arange(groups, device=x.device)[:, None]).to(x.dtype)
    return members @ x / members.sum(2, keepdim=True).clamp(min=1)
