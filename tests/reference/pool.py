"""Adaptive average pooling, literally: one view at a time, by torch's own function on the patches that are in the prompt."""

import torch


def pool(values, there, rows, columns):
    """Values (H, W, d) and there (H, W), a rectangle, of one view → [(patch that names the window, its mean)], row by row."""
    height, width = there.shape
    downs = [row for row in range(height) if there[row].any()]
    acrosses = [column for column in range(width) if there[:, column].any()]
    if not downs:
        return []
    high, broad = len(downs), len(acrosses)
    assert int(there.sum()) == high * broad
    few = max(1, round(rows * high / height)), max(1, round(columns * broad / width))
    cut = values[downs[0] : downs[0] + high, acrosses[0] : acrosses[0] + broad]
    means = torch.nn.functional.adaptive_avg_pool2d(cut.permute(2, 0, 1).double(), few)
    found = []
    for i in range(few[0]):
        for j in range(few[1]):
            row = downs[0] + middle(i, high, few[0])
            column = acrosses[0] + middle(j, broad, few[1])
            found.append((row * width + column, means[:, i, j]))
    return found


def middle(i, size, windows):
    """The place in the middle of window i, the earlier of two."""
    inside = [place for place in range(size) if i * size // windows <= place < -(-(i + 1) * size // windows)]
    return inside[(len(inside) - 1) // 2]
