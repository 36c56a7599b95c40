"""TRIM against its literal rule, in models and on random tensors."""

import numpy as np
import pytest
import torch

from baselines.before_decoder.trim import TRIM, outliers
from fitprune import BudgetError, FitPruneError
from tests.reference.clip import patches_of, text_of
from tests.reference.trim import trim
from tests.support.models import build
from tests.support.padded import padded
from tests.support.readers import clip
from tests.support.shortened import check, llava, tiled

pytestmark = pytest.mark.releases


def test_outliers_are_those_of_numpys_quartiles():
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(n, generator=generator, dtype=torch.float64) ** 6 for n in (41, 40, 7, 1, 0)]
    score, there = padded(scores)
    expected = []
    for own in scores:
        low, high = np.percentile(own, [25, 75]) if len(own) else (0, 0)
        expected.append(int((own > high + 1.5 * (high - low)).sum()))
    assert outliers(score, there).tolist() == expected
    assert max(expected) > 1


def rule_of(case, questions, share):
    """What TRIM sends on, by the question of each sample in turn."""
    model, tokenizer = clip(case.model.config.vision_config.hidden_size)
    asked = iter(questions)

    def choose(seen, n):
        features = seen.features().float()
        stays, gap = trim(patches_of(model, features), text_of(model, tokenizer, next(asked)), share)
        assert gap > 1e-5
        others = [index for index in range(n) if index not in stays]
        mean = features[others].mean(0, keepdim=True)
        return [*stays, others[0]], torch.cat([features[stays], mean]), (others[0],)

    return choose


# The questions with an image of each case, as CLIP takes them: ten words, a start and an end.
CASES = [
    (llava, ["t32 t27 t33 t2 t59 t31 t6 t44", "t61 t17 t3 t60 t32 t43 t29 t20 t42 t35", "t54 t21"]),
    (tiled, ["w1 w2 w3 w4 w5", "w6 w7 w8 w9"]),
]


@pytest.mark.parametrize("share", [None, 0.3, 0.0])
@pytest.mark.parametrize(("case", "questions"), CASES)
def test_a_batch_against_the_literal_rule(case, questions, share):
    case = case()
    check(case, TRIM(share), rule_of(case, questions, share), new=2)


def test_what_cannot_be_is_refused():
    with pytest.raises(FitPruneError, match=r"TRIM's share .* 0 to 1, or None, not 1\.2"):
        TRIM(1.2)
    with pytest.raises(BudgetError, match=r"TRIM cannot save 50\.0%"):
        TRIM.for_reduction(build("llama", 2).config, 0.5)
