"""For methods that choose one token after the other, in all samples at once."""

import torch


def first_picks(picks: list[torch.Tensor], keep: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The first `keep` (rows,) of every row's `picks`, LongTensors (rows,) in the order of picking: bool (rows, n)."""
    chosen = torch.zeros_like(like)
    if picks:
        order = torch.stack(picks, 1)
        row, step = (torch.arange(len(picks), device=keep.device) < keep[:, None]).nonzero(as_tuple=True)
        chosen[row, order[row, step]] = True
    return chosen
