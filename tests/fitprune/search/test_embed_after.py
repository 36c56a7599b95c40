"""Calibration prompts as an earlier pruner leaves them: what the decoder gets is what it gets under that pruner."""

import pytest
import torch

from baselines.before_decoder.visionzip import VisionZip
from baselines.controls.random_pruning import Random
from baselines.in_tower.tome import ToMe
from fitprune import Calibration, Composed, FitPruneError
from fitprune.models.parts import model_parts
from fitprune.search.after import embed_after
from fitprune.search.runs import Importances, _LastLayerSeen, measure
from tests.support import families
from tests.support.models import batch, build, prompt

pytestmark = pytest.mark.releases
FIRST = {
    "visionzip": VisionZip(200, 120, layer=-1),
    "tome": ToMe([7, 5]),
    "random": Random(0.4),
    "random, repacked": Random(0.4, positions="repacked"),
}


def case(family):
    if family == "llava":
        model = build("llama-gqa", 3, seed=2)
        parts = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7]]
        return model, batch([prompt(model, one, seed) for seed, one in enumerate(parts)])
    model, processor = families.build(family, seed=1), families.processor(family)
    return model, families.inputs(processor, [["w1 w2", (30, 20), "w3 w4 w5"], ["w6", (20, 44), "w7 w8"]])


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(("llava", name) for name in FIRST),
        ("llava_next", "visionzip"),
        ("llava_next", "random"),
        ("qwen2_5_vl", "random"),
        ("qwen3_vl", "random"),
    ],
)
def test_the_decoder_is_given_what_it_is_given_under_the_pruner(family, name):
    model, inputs = case(family)
    first = FIRST[name]
    under = Importances()
    # A calibration ends in the last layer.
    with torch.no_grad(), Composed([first, under])(model) as trace, pytest.raises(_LastLayerSeen):
        model(**inputs)
    left = embed_after(model, inputs, first)
    cross, own, alone, _ = measure(model, left)
    assert alone.visual_tokens.tolist() == trace.visual_in[0].tolist()
    assert trace.visual_in[0].sum() < trace.visual_tokens.sum()
    torch.testing.assert_close(cross, torch.stack(under.cross, 1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(own, torch.stack(under.own, 1), rtol=1e-4, atol=1e-6)


def test_a_tower_that_merges_and_keeps_ids_is_refused_in_one_line():
    model, inputs = case("llava")
    with pytest.raises(FitPruneError, match=r"^no recipe can be fitted after tome .*$"):
        embed_after(model, inputs, ToMe([7, 5], positions="kept"))


def test_nothing_left_to_fit_on_is_refused_in_one_line():
    model, inputs = case("llava")
    with pytest.raises(FitPruneError, match=r"^random leaves no visual token .*$"):
        embed_after(model, inputs, Random(1.0))
    assert not model_parts(model).decoder._forward_pre_hooks


def test_statistics_that_are_kept_are_those_of_the_first_one(tmp_path):
    model, inputs = case("llava")
    digests = [
        Calibration(model, [inputs], progress=False, keep=tmp_path, after=first).digest
        for first in (None, Random(0.4), Random(0.5), Random(0.4))
    ]
    assert len(set(digests)) == 3
    assert digests[1] == digests[3]
