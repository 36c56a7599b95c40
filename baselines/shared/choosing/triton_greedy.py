"""Choices made step by step, on CUDA: one Triton kernel, with one program for each sample of a batch, which makes all steps.

A program keeps a score of every token in registers, takes the highest, and reads one row of similarities to bring the scores up
to date; where duplicates are removed in rounds, it reads those of all candidates left. The host launches once, whatever the
number of steps, and waits for nothing. Nothing is summed across programs, so that results do not vary from run to run.
"""

from typing import Any

import torch
import triton
import triton.language as tl

BLOCK = 32
"""Candidates that are compared with as many others at a time."""


@triton.jit
def _leader(score: tl.tensor, token: tl.tensor, n: tl.tensor, size: tl.constexpr) -> tl.tensor:
    """The earliest token of highest score, as an index of 64 bits. Scores that are no numbers never leave the row."""
    first = tl.min(tl.where(score == tl.max(score, 0), token, size), 0)
    return tl.minimum(first, n - 1).to(tl.int64)


@triton.jit(do_not_specialize=["n", "rows"])
def _farthest(
    distance: tl.tensor,
    place: tl.tensor,
    nearest: tl.tensor,
    left: tl.tensor,
    keep: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    rows: tl.tensor,
    size: tl.constexpr,
) -> None:
    """Goes on until all are chosen, or the next token's distances are not among the `rows` at hand; scores and what is left to
    choose are written back."""
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, size)
    here = token < n
    score = tl.load(nearest + sample * n + token, mask=here, other=float("-inf"))
    count = tl.load(left + sample)
    every = tl.load(keep + sample)
    pick = _leader(score, token, n, size)
    row = tl.load(place + sample * n + pick)
    while (count > 0) & (row >= 0):
        reached = tl.load(distance + (sample * rows + row) * n + token, mask=here, other=float("-inf"))
        # The first token chosen is the only one whose score was not its distance to a chosen token.
        closer = tl.minimum(reached, tl.where(count == every, float("inf"), score))
        score = tl.where((score == float("-inf")) | (token == pick), float("-inf"), closer)
        tl.store(out + sample * n + pick, 1)
        count -= 1
        pick = _leader(score, token, n, size)
        row = tl.load(place + sample * n + pick)
    tl.store(nearest + sample * n + token, score, mask=here)
    tl.store(left + sample, count)


@triton.jit(do_not_specialize=["n", "m"])
def _covering(
    cover: tl.tensor,
    weight: tl.tensor,
    there: tl.tensor,
    keep: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    m: tl.tensor,
    size: tl.constexpr,
    things: tl.constexpr,
) -> None:
    """Gains never grow, so an earlier gain is a bound: only that of the leader is computed anew, until it still leads.

    This chooses what computing all gains would, for a sum of floats in a fixed order does not grow where no term of it does.
    """
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, size)
    thing = tl.arange(0, things)
    real = tl.load(there + sample * n + token, mask=token < n, other=0) != 0
    bound = tl.where(real, float("inf"), float("-inf"))
    covered = tl.zeros((things,), tl.float32)
    row = covered
    for _ in range(tl.load(keep + sample)):
        pick = _leader(bound, token, n, size)
        told = pick - 1
        while pick != told:
            told = pick
            row = tl.load(cover + (sample * n + pick) * m + thing, mask=thing < m, other=0.0)
            gain = tl.sum(tl.maximum(row - covered, 0.0), 0) * tl.load(weight + sample * n + pick)
            bound = tl.where(token == pick, gain, bound)
            pick = _leader(bound, token, n, size)
        covered = tl.maximum(covered, row)
        bound = tl.where(token == pick, float("-inf"), bound)
        tl.store(out + sample * n + pick, 1)


@triton.jit(do_not_specialize=["n", "most"])
def _spanning(
    kernel: tl.tensor,
    alone: tl.tensor,
    there: tl.tensor,
    keep: tl.tensor,
    factor: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    most: tl.tensor,
    rank: tl.constexpr,
    tie: tl.constexpr,
    size: tl.constexpr,
) -> None:
    """A row of the growing Cholesky factor is written in each step, and read in all later ones."""
    sample = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, size)
    here = token < n
    left = tl.load(alone + sample * n + token, mask=here, other=0.0)
    last = left - 2
    free = tl.load(there + sample * n + token, mask=here, other=0) != 0
    own = factor + sample * most * n
    for step in range(tl.load(keep + sample)):
        gain = tl.where(free, tl.where(left > rank, left, last), float("-inf"))
        pick = tl.min(tl.where(gain >= tl.max(gain, 0) - tie, token, size), 0)
        pick = tl.minimum(pick, n - 1).to(tl.int64)
        known = left - left
        for before in range(step):
            known += tl.load(own + before * n + pick) * tl.load(own + before * n + token, mask=here, other=0.0)
        added = tl.sum(tl.where(token == pick, left, 0.0), 0)
        row = tl.load(kernel + (sample * n + pick) * n + token, mask=here, other=0.0) - known
        row = tl.where(added > rank, row / tl.sqrt(tl.maximum(added, rank)), 0.0)
        tl.store(own + step * n + token, row, mask=here)
        tl.debug_barrier()
        left -= row * row
        free = free & (token != pick)
        tl.store(out + sample * n + pick, 1)


@triton.jit(do_not_specialize=["n"])
def _distinct(
    alike: tl.tensor,
    wanted: tl.tensor,
    per_round: tl.tensor,
    length: tl.tensor,
    place: tl.tensor,
    nearest: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Keeps each candidate's place in the list, negative once it has gone, instead of the list: the evens are ordered by
    counting those that stand before each. Places are read from one half of `place` (batch, 2, n) and written to the other."""
    sample = tl.program_id(0).to(tl.int64)
    size = tl.load(length + sample)
    goal = tl.load(wanted + sample)
    fastest = tl.load(per_round + sample)
    near_all = nearest + sample * n
    now = sample * 2
    while size > goal:
        evens = (size + 1) // 2
        gone = tl.minimum(tl.minimum(size - goal, evens), fastest)
        after = sample * 4 + 1 - now
        for start in range(0, n, block):
            own = start + tl.arange(0, block)
            at = tl.load(place + now * n + own, mask=own < n, other=-1)
            near = tl.full((block,), float("-inf"), tl.float32)
            for other_start in range(0, n, block):
                other = other_start + tl.arange(0, block)
                there = tl.load(place + now * n + other, mask=other < n, other=-1)
                pair = ((at >= 0) & (at % 2 == 0))[:, None] & ((there >= 0) & (there % 2 == 1))[None, :]
                cosine = tl.load(alike + (sample * n + own[:, None]) * n + other[None, :], mask=pair, other=float("-inf"))
                near = tl.maximum(near, tl.max(cosine, 1))
            tl.store(near_all + own, near, mask=own < n)
        tl.debug_barrier()
        for start in range(0, n, block):
            own = start + tl.arange(0, block)
            at = tl.load(place + now * n + own, mask=own < n, other=-1)
            near = tl.load(near_all + own, mask=own < n, other=0.0)
            before = tl.zeros((block,), tl.int64)
            for other_start in range(0, n, block):
                other = other_start + tl.arange(0, block)
                there = tl.load(place + now * n + other, mask=other < n, other=-1)
                close = tl.load(near_all + other, mask=other < n, other=0.0)
                ahead = (close[None, :] > near[:, None]) | ((close[None, :] == near[:, None]) & (there[None, :] < at[:, None]))
                before += tl.sum((ahead & ((there >= 0) & (there % 2 == 0))[None, :]).to(tl.int64), 1)
            moved = tl.where(at % 2 == 0, before - gone, evens - gone + at // 2)
            tl.store(place + after * n + own, tl.where(at >= 0, moved, -1), mask=own < n)
        tl.debug_barrier()
        now = after
        size -= gone
    for start in range(0, n, block):
        own = start + tl.arange(0, block)
        at = tl.load(place + now * n + own, mask=own < n, other=-1)
        tl.store(out + sample * n + own, (at >= 0).to(tl.uint8), mask=own < n)


def farthest(
    distance: torch.Tensor,
    place: torch.Tensor,
    nearest: torch.Tensor,
    left: torch.Tensor,
    keep: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Steps of `baselines.shared.choosing.greedy.farthest`, as many as the distances at hand allow.

    Args:
        distance: float32 (batch, m, n), from m tokens to all.
        place: LongTensor (batch, n): the row of each token's distances, -1 for none.
        nearest: float32 (batch, n), the scores; brought up to date.
        left: LongTensor (batch,), how many are still to be chosen; brought up to date.
        keep: LongTensor (batch,): how many are to be chosen in all.
        out: bool (batch, n): marked where a token is chosen.
    """
    batch, rows, n = distance.shape
    given = (distance.contiguous(), place.contiguous(), nearest, left, keep, out.view(torch.uint8))
    _launch(_farthest, batch, *given, n, rows, size=triton.next_power_of_2(n))


def covering(cover: torch.Tensor, weight: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`baselines.shared.choosing.greedy.most_covering` by a kernel; the same arguments, shapes and meaning."""
    batch, m, n = cover.shape
    out = torch.zeros_like(there)
    given = (cover.mT.contiguous(), weight.float().contiguous(), there.contiguous().view(torch.uint8), keep)
    sizes = {"size": triton.next_power_of_2(n), "things": triton.next_power_of_2(m)}
    _launch(_covering, batch, *given, out.view(torch.uint8), n, m, **sizes)
    return out


def spanning(
    kernel: torch.Tensor, alone: torch.Tensor, there: torch.Tensor, keep: torch.Tensor, most: int, rank: float, tie: float
) -> torch.Tensor:
    """`baselines.shared.choosing.greedy.spanning` by a kernel; the same arguments, shapes and meaning."""
    batch, n = alone.shape
    out, factor = torch.zeros_like(there), kernel.new_empty(batch, most, n)
    given = (kernel.contiguous(), alone.contiguous(), there.contiguous().view(torch.uint8), keep, factor)
    sizes = {"rank": rank, "tie": tie, "size": triton.next_power_of_2(n)}
    _launch(_spanning, batch, *given, out.view(torch.uint8), n, most, **sizes)
    return out


def distinct(alike: torch.Tensor, length: torch.Tensor, wanted: torch.Tensor, per_round: torch.Tensor) -> torch.Tensor:
    """`baselines.shared.choosing.rounds.thinned` by a kernel: which of the candidates stay, bool (batch, m).

    Args:
        alike: (batch, m, m), their similarities.
        length, wanted, per_round: LongTensor (batch,): candidates, how many of them stay, how many go in a round.
    """
    batch, n = alike.shape[:2]
    number = torch.arange(n, device=alike.device)
    first = torch.where(number < length[:, None], number, -1)
    out = torch.zeros_like(first, dtype=torch.bool)
    scratch = torch.stack([first, first], 1), alike.new_empty(batch, n, dtype=torch.float32)
    given = (alike.float().contiguous(), wanted, per_round, length, *scratch)
    _launch(_distinct, batch, *given, out.view(torch.uint8), n, block=BLOCK)
    return out


def _launch(kernel: Any, batch: int, *given: Any, **sizes: Any) -> None:
    """One program for each sample; `given` ends with what the kernel writes to, and with numbers."""
    first = given[0]
    if not first.numel():
        return
    warps = min(max(sizes.get("size", 1024) // 256, 1), 16)
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(first):
        kernel[(batch,)](*given, **sizes, num_warps=warps)
