"""Random samples of several sizes in one padded batch, for rules that are tested on plain tensors."""

import torch


def padded(samples):
    """Tensors (n, …) of several samples as one (batch, most, …), zeros behind; and where they are, bool (batch, most)."""
    most = max(len(sample) for sample in samples)
    batch = samples[0].new_zeros(len(samples), most, *samples[0].shape[1:])
    for row, sample in enumerate(samples):
        batch[row, : len(sample)] = sample
    sizes = torch.tensor([len(sample) for sample in samples])
    return batch, torch.arange(most) < sizes[:, None]


def places(row):
    """The places that a row of indices padded with -1 on the right names."""
    named = [index for index in row.tolist() if index >= 0]
    assert row.tolist() == named + [-1] * (len(row) - len(named))
    return named
