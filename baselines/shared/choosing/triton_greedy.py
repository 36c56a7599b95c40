"""Greedy choices on CUDA: one Triton kernel, with one program for each sample of a batch, which makes all steps.

A program keeps a score of every token in registers, takes the highest, and reads one row of similarities to bring the scores up
to date. The host launches once, whatever the number of steps, and waits for nothing. Nothing is summed across programs, so
that results do not vary from run to run.
"""

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _leader(score: tl.tensor, token: tl.tensor, n: tl.tensor, size: tl.constexpr) -> tl.tensor:
    """The earliest token of highest score, as an index of 64 bits. Scores that are no numbers never leave the row."""
    first = tl.min(tl.where(score == tl.max(score, 0), token, size), 0)
    return tl.minimum(first, n - 1).to(tl.int64)


@triton.jit(do_not_specialize=["n"])
def _farthest(
    distance: tl.tensor, nearest: tl.tensor, keep: tl.tensor, out: tl.tensor, n: tl.tensor, size: tl.constexpr
) -> None:
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, size)
    here = token < n
    score = tl.load(nearest + sample * n + token, mask=here, other=float("-inf"))
    for step in range(tl.load(keep + sample)):
        pick = _leader(score, token, n, size)
        reached = tl.load(distance + (sample * n + pick) * n + token, mask=here, other=float("-inf"))
        # The first token chosen is the only one whose score was not its distance to a chosen token.
        closer = tl.minimum(reached, tl.where(step == 0, float("inf"), score))
        score = tl.where((score == float("-inf")) | (token == pick), float("-inf"), closer)
        tl.store(out + sample * n + pick, 1)


@triton.jit(do_not_specialize=["n"])
def _covering(
    cosine: tl.tensor,
    weight: tl.tensor,
    there: tl.tensor,
    keep: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    size: tl.constexpr,
) -> None:
    """Gains never grow, so an earlier gain is a bound: only that of the leader is computed anew, until it still leads.

    This chooses what computing all gains would, for a sum of floats in a fixed order does not grow where no term of it does.
    """
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, size)
    real = tl.load(there + sample * n + token, mask=token < n, other=0) != 0
    bound = tl.where(real, float("inf"), float("-inf"))
    covered = tl.zeros((size,), tl.float32)
    row = covered
    for _ in range(tl.load(keep + sample)):
        pick = _leader(bound, token, n, size)
        told = pick - 1
        while pick != told:
            told = pick
            row = tl.load(cosine + (sample * n + pick) * n + token, mask=real, other=0.0)
            gain = tl.sum(tl.maximum(row - covered, 0.0), 0) * tl.load(weight + sample * n + pick)
            bound = tl.where(token == pick, gain, bound)
            pick = _leader(bound, token, n, size)
        covered = tl.maximum(covered, row)
        bound = tl.where(token == pick, float("-inf"), bound)
        tl.store(out + sample * n + pick, 1)


def farthest(distance: torch.Tensor, nearest: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`baselines.shared.choosing.greedy.farthest` by a kernel; the same arguments, shapes and meaning."""
    return _chosen(_farthest, keep, distance, nearest)


def covering(cosine: torch.Tensor, weight: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`baselines.shared.choosing.greedy.covering` by a kernel; the same arguments, shapes and meaning."""
    return _chosen(_covering, keep, cosine, weight.float(), there.view(torch.uint8))


def _chosen(kernel: Any, keep: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
    """Bool (batch, n), which a kernel marks from what it is `given`, the first of it (batch, n, n)."""
    batch, n = given[0].shape[:2]
    out = torch.zeros(batch, n, dtype=torch.uint8, device=keep.device)
    if batch and n:
        size = triton.next_power_of_2(n)
        # Triton launches on the current device, which need not be the tensors'.
        with torch.cuda.device_of(keep):
            kernel[(batch,)](*(part.contiguous() for part in given), keep, out, n, size, num_warps=min(max(size // 256, 1), 16))
    return out.view(torch.bool)
