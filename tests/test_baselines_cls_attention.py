"""What the methods that rank by [CLS] attention do at the ends of their parameters, on tiles, with beams and newlines."""

import pytest
import torch
from models import kept
from reference.decoder import reference_of
from shortened import tiled

from baselines.cls_attention import part, share
from baselines.registry import get_pruner_class

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
