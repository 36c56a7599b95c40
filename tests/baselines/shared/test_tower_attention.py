"""What the methods that rank by [CLS] attention do at the ends of their parameters, on tiles, with beams and newlines."""

import pytest
import torch

from baselines.registry import get_pruner_class
from baselines.shared.counts import part, share
from tests.reference.decoder import reference_of
from tests.support.models import batch, build, kept, prompt
from tests.support.shortened import tiled

pytestmark = pytest.mark.releases

# Name, parameters, the share of a prompt's tokens that goes on.
ENDS = [
    ("visionzip", {"dominant": 500, "contextual": 76}, 1),
    ("visionzip", {"dominant": 2, "contextual": 574}, 1),
    ("visionzip", {"dominant": 1, "contextual": 0}, 1 / 576),
    ("visionzip", {"dominant": 0, "contextual": 0}, 0),
    ("fastervlm", {"visual_token_num": 576}, 1),
    ("fastervlm", {"visual_token_num": 0}, 0),
    ("vispruner", {"visual_token_num": 570}, 570 / 576),
    ("vispruner", {"visual_token_num": 0}, 0),
    ("prumerge", {"if_adaptive": False, "reduction_ratio": 1 / 4}, 1),
    ("prumerge", {"if_adaptive": False, "reduction_ratio": 1, "plus": False}, 1),
    ("hired", {"token_budget_rate": 1.0}, 1),
    ("hired", {"token_budget_rate": 0.0}, 0),
]


@pytest.fixture(scope="module")
def case():
    return tiled()


def run(case, pruner):
    """With two beams: per beam, the visual tokens of its prompt, those that go on, and those of them that have a name."""
    with torch.no_grad(), pruner(case.model) as trace:
        case.model.generate(**case.batch, max_new_tokens=2, num_beams=2, do_sample=False)
    return [
        (total, entered, kept(trace, row)[0])
        for row, (total, entered) in enumerate(zip(trace.visual_tokens.tolist(), trace.visual_in[0].tolist(), strict=True))
    ]


@pytest.mark.parametrize(("name", "options", "left"), ENDS)
def test_the_ends_of_the_parameters(case, name, options, left):
    for total, entered, _ in run(case, get_pruner_class(name)(**options)):
        assert entered == round(total * left)


@pytest.mark.parametrize("positions", ["kept", "repacked"])
@pytest.mark.parametrize("name", sorted({name for name, *_ in ENDS}))
def test_newlines_that_may_be_pruned_go_first(case, name, positions):
    """They are patches of no view."""
    beams = run(case, get_pruner_class(name)(newlines="pruned", positions=positions))
    for row, sample in enumerate(case.samples):
        reference = reference_of(case.model, torch.float32)
        _, image = reference.embed(sample)
        patches = [is_visual for is_visual, is_image in zip(reference.visual(sample, image), image, strict=True) if is_image]
        for total, entered, names in beams[2 * row : 2 * row + 2]:
            assert total == len(patches)
            assert all(patches[index] for index in names)
            assert entered >= len(names)
            assert (entered > 0) is (total > 0)


def test_shares_of_other_token_counts():
    totals = torch.tensor([576, 144, 1, 0])
    assert share(totals, 64, 576).tolist() == [64, 16, 0, 0]
    # In floating point 0.29 · 100 is less than 29.
    assert [int(part(torch.tensor([100]), ratio)) for ratio in (0.07, 0.29, 0.295)] == [7, 29, 29]


PROJECTOR = 16 * 32 + 32 * 32
SPENT = [
    ("fastervlm", {}, 0),
    ("hired", {}, 0),
    # The cosines of what 18 important ones of 36 leave.
    ("vispruner", {"visual_token_num": 320}, 26 * 26 * 16),
    # Of 12 tokens 2 are contextual: cosines with all 36 by one head's 8 channels, sums over all 36; these and [CLS] projected.
    ("visionzip", {"dominant": 160, "contextual": 32}, 2 * 36 * (8 + 16) + 3 * PROJECTOR),
    # 18 tokens: cosines and sums over all 36, one sum more; 19 projected.
    ("prumerge", {"if_adaptive": False}, (18 + 19) * 36 * 16 + 19 * PROJECTOR),
]


@pytest.mark.parametrize(("name", "options", "macs"), SPENT)
def test_every_product_is_counted_once(name, options, macs):
    """Beside one query of [CLS] against 37 keys of 16 channels."""
    model = build("llama", 3)
    with torch.no_grad(), get_pruner_class(name)(**options)(model) as trace:
        model(**prompt(model, [3, "image", 5]))
        alone = list(trace.scoring_macs)
        samples = [prompt(model, [3, "image", 5]), prompt(model, [4]), prompt(model, ["image", 2], seed=1)]
        model(**batch(samples))
    assert alone == [37 * 16 + macs, 0, 0]
    assert trace.scoring_macs == [2 * alone[0], 0, 0]
