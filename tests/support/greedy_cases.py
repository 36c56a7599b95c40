"""Cases for greedy choices: for the tests, and for the process in which Triton interprets their kernels."""

from dataclasses import dataclass
from unittest import mock

import torch

from baselines.before_decoder import divprune, scope, vispruner
from baselines.shared.choosing import greedy


@dataclass(frozen=True)
class Case:
    """Samples of `counts` tokens, of which so many are kept.

    Attributes:
        ties: features of entries -1, 0 and 1 whose norm is a power of two, every second of them twice: all arithmetic is exact,
            and many scores are equal.
        gaps: whether tokens are absent in the middle, not on the right only.
    """

    counts: tuple[int, ...]
    keep: tuple[int, ...]
    ties: bool = False
    gaps: bool = False
    seed: int = 0


CASES = {
    "one sample": Case((37,), (20,)),
    "padded": Case((40, 17, 0, 33), (20, 5, 0, 33), seed=1),
    "gaps": Case((30, 18), (11, 6), gaps=True, seed=2),
    "ties": Case((32, 21), (12, 7), ties=True, seed=3),
    "ties and gaps": Case((16, 32), (6, 14), ties=True, gaps=True, seed=4),
}


def inputs(case, device="cpu"):
    """Features (batch, n, 16), salience (batch, n), the tokens present, bool (batch, n), and how many are kept, (batch,)."""
    generator = torch.Generator().manual_seed(case.seed)
    batch, n = len(case.counts), max(case.counts) + 5 * case.gaps
    features = torch.randn(batch, n, 16, generator=generator)
    salience = torch.rand(batch, n, generator=generator) + 0.05
    if case.ties:
        signs = torch.randint(2, (batch, n, 16), generator=generator) * 2.0 - 1
        place = torch.rand(batch, n, 16, generator=generator).argsort(2)
        features = signs * (place < torch.tensor([1, 4, 16])[torch.randint(3, (batch, n, 1), generator=generator)])
        features[:, 1::2] = features[:, : n - n % 2 : 2]
        salience = torch.randint(1, 3, (batch, n), generator=generator) / 2
    present = torch.arange(n) < torch.tensor(case.counts)[:, None]
    if case.gaps:
        present = torch.stack([row[torch.randperm(n, generator=generator)] for row in present])
    return [value.to(device) for value in (features, salience, present, torch.tensor(case.keep))]


def cover(features):
    """How well each token covers each of a few things, (batch, m, n): not square, one of them covered by none."""
    things = features[:, ::3] @ features.mT
    things[:, 1] = 0
    return things.clamp(min=0)


PER_ROUND = 3
IMPORTANT = 0.25


def chosen(case, device="cpu"):
    """What is chosen, by method: DivPrune both with all distances at hand and with those of a few tokens at a time."""
    features, salience, present, keep = inputs(case, device)
    with mock.patch.multiple(greedy, WHOLE=8, LIKELY=5, LIKELY_ON_CUDA=5):
        in_parts = divprune.farthest(features, present, keep)
        spanning_in_parts = greedy.most_diverse(features, salience, present, keep)
    per_round = torch.full_like(keep, PER_ROUND)
    return {
        "divprune": divprune.farthest(features, present, keep),
        "divprune in parts": in_parts,
        "scope": scope.covering(features, salience, present, keep),
        "mmtok": greedy.most_covering(cover(features), torch.ones_like(salience), present, keep),
        "cdpruner in parts": spanning_in_parts,
        "cdpruner": greedy.most_diverse(features, salience, present, keep),
        "vispruner": vispruner.choose(salience, features, present, keep, IMPORTANT, per_round)[0],
    }
