"""What methods that look into the vision tower keep and spend, foretold from a configuration, are those of a real run."""

import pytest
import torch

from baselines.registry import get_pruner_class
from baselines.shared.dry_run import plan
from fitprune import UnsupportedModel
from harness.__main__ import main
from harness.commands.flops import Prompt
from harness.models.registry import find_model
from harness.models.shipped import family_of, read_config, transformers_config
from tests.support import llava_hr
from tests.support.models import build, prompt

METHODS = ["visionzip", "fastervlm", "vispruner", "prumerge", "hired"]


@pytest.mark.parametrize("family", ["llava", "llava_hr"])
@pytest.mark.parametrize("name", METHODS)
def test_a_plan_is_what_happens(name, family):
    home = llava_hr if family == "llava_hr" else None
    model = home.build() if home else build("qwen2", 5)
    inputs = home.prompt(["image", 6]) if home else prompt(model, ["image", 6])
    pruner = get_pruner_class(name).for_reduction(model.config, 0.4)
    with torch.no_grad(), pruner(model) as trace:
        model(**inputs)
    planned = plan(pruner, model.config, 6, 36)
    assert planned.text_tokens.tolist() == trace.text_tokens.tolist() == [6]
    assert planned.visual_tokens.tolist() == trace.visual_tokens.tolist() == [36]
    assert [int(row) for row in planned.visual_in] == [int(row) for row in trace.visual_in]
    assert [int(row) for row in planned.visual_out] == [int(row) for row in trace.visual_out]
    assert planned.scoring_macs == trace.scoring_macs


@pytest.mark.parametrize("name", METHODS)
def test_tiles_of_a_model_that_is_not_here(name):
    spec = find_model("llava-next-7b")
    record = read_config(spec)
    asked = Prompt(transformers_config(spec), family_of(spec, record).view(record, 1024, 768), 64, 1)
    tokens = asked.view.tokens
    pruner = get_pruner_class(name).for_reduction(asked.config, 0.5, visual_tokens=tokens)
    planned = asked.plan(pruner)
    dense, pruned = asked.cost(), asked.cost(planned)
    assert int(planned.visual_in[0]) == pytest.approx(tokens / 2, rel=0.05)
    assert pruned.scoring == 2 * sum(planned.scoring_macs) > 0
    assert pruned.reduction(dense) == pytest.approx(0.45, abs=0.02)


@pytest.mark.parametrize("family", ["llava", "llava_hr"])
def test_a_smaller_picture_in_the_tower(family):
    home = llava_hr if family == "llava_hr" else None
    model = home.build() if home else build("qwen2", 5)
    inputs = home.prompt(["image", 6]) if home else prompt(model, ["image", 6])
    same_as_real(get_pruner_class("downsample")(3, 4, 36), model, inputs)


def test_merging_in_the_tower():
    model = build("qwen2", 5)
    same_as_real(get_pruner_class("tome")([9, 2]), model, prompt(model, ["image", 6]))
    with pytest.raises(UnsupportedModel, match="mixes them on their grid"):
        plan(get_pruner_class("tome")(2), llava_hr.build().config, 6, 36)


def test_tiles_of_smaller_pictures():
    """Each of the five views is encoded at half its height and width."""
    spec = find_model("llava-next-7b")
    asked = Prompt(transformers_config(spec), family_of(spec, read_config(spec)).view(read_config(spec), 672, 672), 64, 1)
    planned = asked.plan(get_pruner_class("downsample")(12, 12))
    assert int(planned.visual_in[0]) == 5 * 144
    assert (planned.tower.views, planned.tower.pixels) == (5, (168, 168))
    assert planned.tower.attended == [145] * 24
    assert asked.cost(planned).vision < asked.cost().vision / 4


def same_as_real(pruner, model, inputs):
    with torch.no_grad(), pruner(model) as trace:
        model(**inputs)
    planned = plan(pruner, model.config, 6, 36)
    assert [int(row) for row in planned.visual_in] == [int(row) for row in trace.visual_in]
    assert planned.scoring_macs == trace.scoring_macs
    assert planned.tower == trace.tower


def test_nothing_is_drawn_from_the_callers_generator():
    config, state = build("llama", 2).config, torch.get_rng_state()
    plan(get_pruner_class("hired")(), config, 5, 36)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen3-vl-2b", "smolvlm2-500m", "gemma-3-4b"])
def test_another_tower_is_refused(name):
    config = transformers_config(find_model(name))
    with pytest.raises(UnsupportedModel, match="CLIP"):
        plan(get_pruner_class("hired")(), config, 5, 36)


@pytest.mark.exhaustive
def test_the_table_says_which_methods_cannot_run(capsys):
    """On its own in one line; of all methods the others are there."""
    words = ["flops", "--model", "qwen2.5-vl-3b", "--reduction", "0.5"]
    said = "VisionZip cannot run here: the vision tower of a qwen2_5_vl model is not of CLIP's or SigLIP's form."
    assert main([*words, "--pruner", "visionzip"]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"visionzip: {said}" in text
    assert any(line.startswith("fastv ") for line in text.splitlines())
