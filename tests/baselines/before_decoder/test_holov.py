"""HoloV against its literal rule, on random tensors and in models."""

import pytest
import torch

from baselines.before_decoder.holov import HoloV, choose
from fitprune import BudgetError, FitPruneError
from tests.reference.holov import holov
from tests.support.models import build
from tests.support.padded import padded
from tests.support.shortened import check, layers_of, llava, tiled, without_cls

pytestmark = pytest.mark.releases

# Whole strips, longer ones, strips of one token, fewer tokens than strips, none.
SIZES = [64, 75, 20, 9, 0]


@pytest.mark.parametrize("keep", [[8, 30, 5, 4, 0], [63, 40, 19, 9, 0], [64, 1, 0, 1, 0]])
def test_random_tensors_against_the_literal_rule(keep):
    generator = torch.Generator().manual_seed(4)
    # Peaked, so that some strips are worth more tokens than they have.
    scores = [torch.randn(n, generator=generator, dtype=torch.float64).mul(1.5).exp() / 600 for n in SIZES]
    score, present = padded(scores)
    mask, lost = choose(score, present, torch.tensor(keep), 16), 0
    for row, n in enumerate(SIZES):
        features = torch.randn(n, 6, generator=generator)
        expected, authors, sure = holov(scores[row], features, keep[row]) if n else ([], [], 1)
        assert sure > 1e-4 or keep[row] == 0
        assert mask[row].nonzero()[:, 0].tolist() == expected
        assert set(authors) <= set(expected)
        assert len(expected) == keep[row]
        lost += len(expected) - len(authors)
    assert lost > 0 or max(keep) == 30


def test_the_similarity_of_a_strip_changes_nothing():
    """What the authors add to a strip's score is the same share of it, whether its tokens are alike or not."""
    generator = torch.Generator().manual_seed(5)
    attention = torch.rand(64, generator=generator)
    found = [
        holov(attention, spread * torch.randn(64, 6, generator=generator) + torch.ones(6), 20)[0] for spread in (0.2, 1, 5)
    ]
    assert found[0] == found[1] == found[2]


def rule(pruner, layers):
    def choose_of(seen, n):
        keep = round(n * pruner.new_image_token_num / pruner.visual_tokens)
        score = seen.attention(pruner.layer % layers).mean(0)
        stays, _, sure = holov(score, seen.features(), keep, pruner.num_patches)
        assert sure > 1e-4
        return stays, None, ()

    return choose_of


@pytest.mark.parametrize("options", [{}, {"new_image_token_num": 300, "num_patches": 5, "layer": -1}])
@pytest.mark.parametrize("case", [llava, tiled, without_cls])
def test_a_batch_against_the_literal_rule(case, options):
    case = case()
    pruner = HoloV(**options)
    check(case, pruner, rule(pruner, layers_of(case.model)), new=2)


def test_what_cannot_be_is_refused():
    with pytest.raises(FitPruneError, match="one strip at least, not 0"):
        HoloV(num_patches=0)
    with pytest.raises(FitPruneError, match=r"HoloV keeps new_image_token_num tokens.*not 577 of 576"):
        HoloV(577)
    with pytest.raises(BudgetError, match="HoloV cannot save"):
        HoloV.for_reduction(build("llama", 2).config, 0.9999)
