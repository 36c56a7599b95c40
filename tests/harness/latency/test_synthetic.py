"""Models with random weights and prompts of noise: the right shapes, in one place, in memory once."""

import pytest
import torch

from baselines.between_layers.fastv import FastV
from fitprune import FitPruneError
from fitprune.models.parts import image_token_id
from harness.cost.memory import peak_cpu_bytes, peak_cuda_bytes
from harness.latency.subject import Subject
from harness.latency.synthetic import TEXT_IDS, random_model, random_prompt
from harness.models.registry import find_model
from harness.models.shipped import family_of, read_config
from tests.support import families
from tests.support.models import new_tokens

EMBEDDED = ["llava-tiny", "llava-deep-tiny", "llava-next-tiny", "llava-hr-tiny"]
SIZES = [(64, 48), (30, 90)]


def spec_of(name, folder):
    """An embedded model's entry, or a folder with nothing but a family's configuration."""
    if name in EMBEDDED:
        return find_model(name)
    families.CONFIGS[name](None, 3, {}, {})[1].save_pretrained(folder)
    return find_model(str(folder))


def view_of(spec, size):
    record = read_config(spec)
    return family_of(spec, record).view(record, *size)


@pytest.mark.product(strength=1, without=lambda name, size: name == "qwen3_vl")  # whose smallest image is large
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", [*EMBEDDED, *families.FAMILIES])
def test_a_random_model_answers_its_random_prompts_dense_and_pruned(name, size, tmp_path):
    spec = spec_of(name, tmp_path)
    model, view = random_model(spec, "cpu"), view_of(spec, size)
    model.generation_config.eos_token_id = None
    inputs = random_prompt(model.config, view, 9, 2, next(model.parameters()))
    assert inputs["input_ids"].shape == (2, view.tokens + view.newlines + 9)
    for pruner in (None, FastV(k=1, r=0.5)):
        subject = Subject(model, inputs, pruner, new_tokens=3)
        with torch.inference_mode(), subject.context() as trace:
            state = subject.answer()
            expected = new_tokens(model, inputs, 3)
        assert torch.equal(state.token, expected[:, -1:])
        if pruner is not None:
            assert trace.visual_tokens.tolist() == [view.tokens] * 2
            assert trace.text_tokens.tolist() == [9 + view.newlines] * 2
            assert [len(row) for row in trace.kept[-1]] == [int(view.tokens * 0.5)] * 2


@pytest.mark.parametrize("name", [*EMBEDDED, *families.FAMILIES])
def test_text_holds_no_token_that_stands_for_something(name, tmp_path):
    spec = spec_of(name, tmp_path)
    config = random_model(spec, "cpu", layers=1).config
    view = view_of(spec, SIZES[0])
    image = view.tokens + view.newlines
    inputs = random_prompt(config, view, 400, 3, torch.empty(0))
    ids, token = inputs["input_ids"], image_token_id(config)
    assert (ids == token).sum(1).tolist() == [image] * 3
    assert bool((ids[:, 200 : 200 + image] == token).all())
    words = torch.cat([ids[:, :200], ids[:, 200 + image :]], 1)
    others = [value for key, value in vars(config).items() if key.endswith("_token_id") and value is not None]
    assert not bool(torch.isin(words, torch.tensor(others)).any())
    assert int(words.max()) < min(TEXT_IDS, config.get_text_config().vocab_size)
    again = random_prompt(config, view, 400, 3, torch.empty(0))
    assert all(torch.equal(again[key], value) for key, value in inputs.items())


def test_prompts_are_where_the_model_is_and_in_its_dtype():
    spec = find_model("llava-tiny")
    like = torch.empty(0, dtype=torch.bfloat16, device="meta")
    inputs = random_prompt(random_model(spec, "cpu", layers=1).config, view_of(spec, SIZES[0]), 4, 1, like)
    assert {tensor.device.type for tensor in inputs.values()} == {"meta"}
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["input_ids"].dtype == torch.long


def test_each_weight_is_made_once_in_the_checkpoint_s_dtype(tmp_path):
    family_config = families.CONFIGS["internvl"](None, 3, {"hidden_size": 256, "vocab_size": 4000}, {})[1]
    family_config.dtype = torch.bfloat16
    family_config.save_pretrained(tmp_path)
    made = []
    peak = peak_cpu_bytes(lambda: made.append(random_model(find_model(str(tmp_path)), "cpu")))
    weights = list(made[0].parameters())
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in weights)
    total = sum(weight.nbytes for weight in weights)
    largest = max(weight.nbytes for weight in weights)
    # What is held is the weights; a draw in float32 for one of them may be held beside them.
    assert total <= peak <= total + 3 * largest


def test_a_registered_model_has_its_checkpoint_s_dtype_or_the_one_asked_for():
    assert random_model(find_model("llava-tiny"), "cpu").dtype == torch.float32
    assert random_model(find_model("llava-tiny"), "cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_weights_repeat_and_other_draws_are_left_alone():
    spec = find_model("llava-tiny")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first, second = (random_model(spec, "cpu", layers=2) for _ in range(2))
    assert torch.equal(torch.rand(4), expected)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not first.training


def test_fewer_layers(tmp_path):
    made = random_model(spec_of("qwen2_5_vl", tmp_path), "cpu", layers=1)
    assert len(made.model.language_model.layers) == 1
    for layers in (0, 4):
        with pytest.raises(FitPruneError, match=f"has 3 decoder layers; --layers cannot be {layers}"):
            random_model(find_model(str(tmp_path)), "cpu", layers=layers)


def test_a_device_that_is_not_here():
    if not torch.cuda.is_available():
        with pytest.raises(FitPruneError, match="'cuda:0' is not here"):
            random_model(find_model("llava-tiny"), "cuda:0")
    with pytest.raises(FitPruneError, match="random weights go to one device"):
        random_model(find_model("llava-tiny"), "auto")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda():
    made, device = [], torch.device("cuda:0")
    peak = peak_cuda_bytes(lambda: made.append(random_model(find_model("llava-tiny"), "cuda:0", dtype="bfloat16")), device)
    weights = list(made[0].parameters())
    assert {(weight.device, weight.dtype) for weight in weights} == {(device, torch.bfloat16)}
    # The allocator rounds each tensor up to 512 bytes.
    assert peak <= sum(weight.nbytes + 512 for weight in weights) + 3 * max(weight.nbytes for weight in weights)
    inputs = random_prompt(made[0].model.config, view_of(find_model("llava-tiny"), SIZES[0]), 8, 2, weights[0])
    assert {tensor.device for tensor in inputs.values()} == {device}
    Subject(made[0].model, inputs, FastV(), new_tokens=3).run()
