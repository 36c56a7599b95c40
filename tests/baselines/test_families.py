"""The methods between layers on the families beside LLaVA-1.5: newlines and three-axis positions stay, tiles are one pool."""

import pytest
import torch

from baselines.between_layers.dart import DART
from baselines.between_layers.pyramiddrop import PyramidDrop
from baselines.between_layers.sparsevlm import SparseVLM, SparseVLMPlus
from baselines.between_layers.vtw import VTW
from fitprune import UnsupportedModel
from tests.reference import dart, pyramiddrop, sparsevlm, vtw
from tests.reference.between import run
from tests.support.families import DECODED, ON_AXES, build, inputs, processor
from tests.support.models import kept, new_tokens
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
PROMPTS = {"wide": ["w1 w2", (30, 20), "w3 w4 w5 w6"], "two": ["w1", (20, 44), "w2", (30, 20), "w3 w4 w5"]}
STAGES = (0, 1, 2)
RATIOS = (0.5, 0.3, 0.1)


def methods(positions):
    """Name → the method, its literal rule, and the gaps that the rule notes."""
    ahead, apart, plain, plus = [], [], sparsevlm.Rule((303, 110, 36), STAGES), sparsevlm.Rule((238, 108, 60), STAGES, 14)
    return {
        "vtw": (VTW(2, positions=positions), vtw.rule(2), []),
        "pyramiddrop": (PyramidDrop((1, 2, 3), RATIOS, positions=positions), pyramiddrop.rule(ahead, (1, 2, 3), RATIOS), ahead),
        "dart": (DART(1, 13, visual_tokens=36, positions=positions), dart.rule(apart, 13, 1), apart),
        "sparsevlm": (SparseVLM(128, STAGES, positions=positions), plain, plain.gaps),
        "sparsevlm-plus": (SparseVLMPlus(128, STAGES, positions=positions), plus, plus.gaps),
    }


def refused(family, positions):
    """Positions on three axes cannot be numbered anew."""
    return family in ON_AXES and positions == "repacked"


@pytest.mark.product(strength=1, without=lambda family, positions, **others: refused(family, positions))
@pytest.mark.parametrize("positions", ["kept", "repacked"])
@pytest.mark.parametrize("parts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize(("family", "decoder"), DECODED)
@pytest.mark.parametrize("name", methods("kept"))
def test_against_the_literal_rule(name, family, decoder, parts, positions):
    model = build(family, 4, decoder=decoder, seed=1)
    sample = inputs(processor(family), [parts])
    pruner, rule, gaps = methods(positions)[name]
    if refused(family, positions):
        with pytest.raises(UnsupportedModel, match="use positions='kept'"), pruner(model):
            pass
        return
    expected = run(model, sample, rule, 4, repack=positions == "repacked")
    assert min([1, *gaps, expected.closest]) > 1e-5, "the random model has a near-tie: choose another seed"
    with torch.no_grad(), pruner(model) as trace:
        output = model(**sample)
        tokens = new_tokens(model, sample, 4)[0].tolist()
    assert kept(trace) == expected.kept
    assert [cache_of(output).get_seq_length(layer) for layer in range(4)] == expected.kv_lengths
    assert float((output.logits[0] - expected.logits).abs().max()) < 2e-4
    assert tokens == expected.tokens
