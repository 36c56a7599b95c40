"""Rows of padded batches: taking rows out of a sequence, and putting rows into one."""

import torch


def take(values: torch.Tensor, rows: torch.Tensor, samples: torch.Tensor | None = None) -> torch.Tensor:
    """Gather `rows` (batch, T') along the second-last axis of (…, batch, T, d); a batch axis of 1 is expanded to `batch`.

    `samples` is LongTensor (batch, 1): 0, 1, …; made anew where it is None.
    """
    batch = len(rows)
    # Whole rows are copied; a gather would index every element.
    if batch == 1:
        return values[..., rows[0], :]
    if values.shape[-3] != batch:
        values = values.expand(*values.shape[:-3], batch, *values.shape[-2:])
    if samples is None:
        samples = torch.arange(batch, device=rows.device)[:, None]
    return values[..., samples, rows, :]


def true_first(mask: torch.Tensor) -> torch.Tensor:
    """The order, LongTensor (batch, n), that brings the True ones of `mask` (batch, n) to the front, all else unchanged."""
    return mask.view(torch.uint8).argsort(dim=1, descending=True, stable=True)


def put(sequence: torch.Tensor, position: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`sequence` (batch, T, …) with `values` (batch, n, …) at `position` (batch, n); values at -1 are left out."""
    # Position -1 falls on an extra first column, which is cut off again.
    wide = torch.cat([sequence[:, :1], sequence], 1)
    index = (position + 1).view(*position.shape, *[1] * (values.ndim - 2)).expand_as(values)
    return wide.scatter(1, index, values)[:, 1:]
