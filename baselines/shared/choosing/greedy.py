"""Greedy choices in padded batches, one token after the other: by one Triton kernel on CUDA, in torch elsewhere."""

import importlib
from collections.abc import Callable
from types import ModuleType

import torch

from baselines.shared.padded import first_picks, rows_at
from fitprune.scoring.column_sums import triton_runs

LONGEST = 16384
"""Tokens up to which a kernel keeps what it knows of each in registers."""

WHOLE = 1024
"""Tokens of a prompt up to which a matrix of all pairs is held."""

LIKELY, LIKELY_ON_CUDA = 64, 512
"""Tokens of a long prompt whose distances to all are held."""

ROUNDS = 4
"""How often these are chosen anew before the host asks whether all is done."""

RANK = 1e-5
"""What a token adds counts as nothing below this share of the most that one adds by itself: features of float32 end there."""

TIE = 1e-9
"""Tokens tie where what they add differs by less, as a share of the same: of duplicates, the first is taken."""


def kernels_for(values: torch.Tensor) -> ModuleType | None:
    """The module of Triton kernels that chooses among these (batch, n, …); None where torch does the work."""
    if values.shape[1] > LONGEST or not triton_runs(values):
        return None
    return importlib.import_module("baselines.shared.choosing.triton_greedy")


def farthest(distance: torch.Tensor, nearest: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The tokens that are farthest from one another, bool (batch, n).

    The first is that of highest `nearest`. Then follows, one by one, the token whose nearest chosen token is farthest. Of
    equals, the earliest is chosen.

    Args:
        distance: float32 (batch, n, n), symmetric, -inf from each token to itself.
        nearest: float32 (batch, n): the first choice's score; -inf for a token that may not be chosen.
        keep: LongTensor (batch,): how many to choose, at most as many as may be.
    """
    if (kernels := kernels_for(distance)) is not None:
        out, place = torch.zeros_like(nearest, dtype=torch.bool), torch.arange(nearest.shape[1], device=nearest.device)
        kernels.farthest(distance, place.expand(nearest.shape), nearest.clone(), keep.clone(), keep, out)
        return out
    samples = torch.arange(len(distance), device=distance.device)
    return _one_by_one(lambda pick, _: distance[samples, pick], nearest, keep)


def farthest_of_many(
    distances: Callable[[torch.Tensor], torch.Tensor], nearest: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """`farthest` where not all distances are held. `distances` gives those from tokens (batch, m) to all, (batch, m, n).

    They are computed for the tokens that are likely to be next: those of highest score.
    """
    if (kernels := kernels_for(nearest)) is None:
        return _one_by_one(_Rows(distances), nearest, keep)
    score, left, out = nearest.clone(), keep.clone(), torch.zeros_like(nearest, dtype=torch.bool)
    before: list[int] = []
    # Each round takes a step at least. The host asks how many are left once in several.
    while (now := left.tolist()) != before and any(now):
        before = now
        for _ in range(ROUNDS):
            kernels.farthest(*_likely(distances, score, LIKELY_ON_CUDA), score, left, keep, out)
    return out


def _likely(rows: Callable[[torch.Tensor], torch.Tensor], score: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows (batch, m, n) of the `count` tokens of highest score (batch, n), and each token's place among them, or -1."""
    tokens = score.argsort(dim=1, descending=True, stable=True)[:, :count]
    number = torch.arange(tokens.shape[1], device=tokens.device)
    nowhere = torch.full_like(score, -1, dtype=torch.long)
    return rows(tokens), nowhere.scatter(1, tokens, number.expand_as(tokens))


class _Rows:
    """A matrix's row (batch, n) of one token of each sample. `rows` gives those of tokens (batch, m), (batch, m, n); those of
    the `LIKELY` tokens of highest score are held.
    """

    def __init__(self, rows: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._rows = rows
        self._held: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, token: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        samples = torch.arange(len(token), device=token.device)
        if self._held is None or bool((self._held[1][samples, token] < 0).any()):
            self._held = _likely(self._rows, score, LIKELY)
        held, place = self._held
        return held[samples, place[samples, token]]


def _one_by_one(
    row: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], nearest: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """`farthest` in torch. `row` gives distances (batch, n) from tokens (batch,), and is told each token's score (batch, n)."""
    closed, picks = nearest == -torch.inf, []
    for step in range(int(keep.max())):
        picks.append(nearest.argmax(1))
        reached = row(picks[-1], nearest)
        nearest = reached.masked_fill(closed, -torch.inf) if step == 0 else torch.minimum(nearest, reached)
    return first_picks(picks, keep, nearest.shape[1])


def covering(cosine: torch.Tensor, weight: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The tokens that together cover all others, bool (batch, n).

    The gain of token j is weight[j] times the sum over all tokens i of max(0, cosine(i, j) - the highest cosine of i to a
    chosen token, or 0). The token of highest gain is next; of equals, the earliest.

    Args:
        cosine: float32 (batch, n, n), symmetric.
        weight: (batch, n), not negative.
        there: bool (batch, n): the tokens that may be chosen, and are to be covered.
        keep: LongTensor (batch,): how many to choose, at most as many as may be.
    """
    return most_covering(cosine * there[:, :, None], weight, there, keep)


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
    if (kernels := kernels_for(cover)) is not None:
        return kernels.covering(cover, weight, there, keep)
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
    float64: what is left of a token after many others is a difference of nearly equal numbers. A kernel of more than `WHOLE`
    tokens is held on CUDA alone.

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
    alone, most = weight**2, int(keep.max())
    if rows.shape[1] > WHOLE and kernels_for(rows) is None:
        return _one_by_one_spanning(_Rows(lambda tokens: rows_at(rows, tokens) @ rows.mT), alone, present, keep, most)
    return spanning(rows @ rows.mT, alone, present, keep, most)


def spanning(kernel: torch.Tensor, alone: torch.Tensor, present: torch.Tensor, keep: torch.Tensor, most: int) -> torch.Tensor:
    """`most_diverse` of a kernel, float64 (batch, n, n), and its diagonal `alone` (batch, n), at most 1; none keeps more than
    `most`."""
    if (kernels := kernels_for(kernel)) is not None:
        return kernels.spanning(kernel, alone, present, keep, most, RANK, TIE)
    samples = torch.arange(len(kernel), device=kernel.device)
    return _one_by_one_spanning(lambda token, _: kernel[samples, token], alone, present, keep, most)


def _one_by_one_spanning(
    row_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    alone: torch.Tensor,
    present: torch.Tensor,
    keep: torch.Tensor,
    most: int,
) -> torch.Tensor:
    """`spanning` in torch. `row_of` gives the kernel's rows (batch, n) of tokens (batch,), and is told each token's gain
    (batch, n).
    """
    left, last = alone, alone - 2  # in [-2, -1], below whatever is left
    closed = torch.zeros_like(left).masked_fill(~present, -torch.inf)
    samples, picks = torch.arange(len(alone), device=alone.device), []
    factor = alone.new_zeros(len(alone), most, alone.shape[1])
    for step in range(most):
        gain = torch.where(left > RANK, left, last) + closed
        best = (gain >= gain.amax(1, keepdim=True) - TIE).byte().argmax(1)
        row = row_of(best, gain)
        if step:
            before = factor[:, :step]
            row = row - (before[samples, :, best][:, None] @ before)[:, 0]
        added = left[samples, best][:, None]
        row = torch.where(added > RANK, row / added.clamp(min=RANK).sqrt(), 0)
        factor[:, step] = row
        left = left - row**2
        closed.scatter_(1, best[:, None], -torch.inf)
        picks.append(best)
    return first_picks(picks, keep, alone.shape[1])


def volume_macs(count: torch.Tensor | int, keep: torch.Tensor | int) -> torch.Tensor | int:
    """Multiply-accumulates of `most_diverse` for `keep` of `count` tokens, the kernel left out."""
    return count * keep * (keep - 1) // 2
