"""Latency and memory: what is reported, against independent figures. No test depends on how long something took."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from baselines.between_layers.fastv import FastV
from baselines.controls.dense import Dense
from fitprune import FitPrune, FitPruneError, Pruner, Recipe
from harness.cost.memory import distinct_bytes, kv_bytes, peak_cpu_bytes
from harness.latency import subject as timed
from harness.latency.measure import Comparison, compare, measure
from harness.latency.subject import Subject
from tests.support import families
from tests.support.random_llava import build, prompts

pytestmark = pytest.mark.releases
FITPRUNE = FitPrune(Recipe(drop=[0, 9, 0, 13, 4], visual_tokens=36))
METHODS = {"none": None, "dense": Dense(), "fitprune": FITPRUNE, "fastv": FastV(k=2, r=0.5)}


@pytest.fixture(params=["clip-llama-mha", "clip-llama-gqa"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The instants that the clock will show, in seconds, in place of the real ones."""
    instants: list[float] = []
    monkeypatch.setattr(timed, "time", SimpleNamespace(perf_counter=lambda: instants.pop(0)))
    return instants


def instants(*runs: tuple[float, float]) -> list[float]:
    """Clock readings of runs with these milliseconds of prefill and of decode (all steps)."""
    return [value / 1e3 for prefill, decode in runs for value in (0.0, prefill, prefill + decode)]


def test_times_are_medians_with_quartiles_after_warm_up(ticks: list[float]) -> None:
    model = build("clip-llama-mha")
    ticks += instants((9000, 9000), (10, 6), (40, 12), (20, 9), (30, 3), (50, 15))
    result = measure(model, prompts(model, [9, 9]), new_tokens=4, repeats=5, warmup=1)
    assert ticks == []
    assert result.prefill_ms == pytest.approx(30)
    assert result.prefill_iqr_ms == pytest.approx((20, 40))
    assert result.decode_ms_per_token == pytest.approx(3)
    assert result.decode_iqr_ms == pytest.approx((2, 4))
    assert result.end_to_end_ms == pytest.approx(33)
    assert result.end_to_end_iqr_ms == pytest.approx((29, 52))
    assert (result.new_tokens, result.repeats, result.batch, result.device) == (4, 5, 2, "cpu")
    assert result.threads == torch.get_num_threads()


def test_comparison_takes_turns_and_pairs_its_ratios(ticks: list[float]) -> None:
    model = build("clip-llama-mha")
    # Dense, pruned, dense, pruned, …: the machine slows down tenfold, the ratios 0.5, 0.6, 0.7 do not.
    ticks += instants((1, 1), (1, 1), (10, 10), (5, 10), (50, 10), (30, 20), (100, 10), (70, 30))
    result = compare(model, prompts(model, [9]), FITPRUNE, new_tokens=2, repeats=3, warmup=1)
    assert ticks == []
    assert result.prefill_ratio == pytest.approx(0.6)
    assert result.prefill_ratio_iqr == pytest.approx((0.55, 0.65))
    assert result.decode_ratio == pytest.approx(2)
    assert result.end_to_end_ratio == pytest.approx(50 / 60)
    assert (result.dense.prefill_ms, result.pruned.prefill_ms) == pytest.approx((50, 30))
    record = json.loads(json.dumps(result.latency_ms()))
    assert record["prefill"] == pytest.approx(30)
    assert record["dense_prefill"] == pytest.approx(50)
    assert record["prefill_ratio"] == pytest.approx(0.6)
    assert record["decode_per_token"] == pytest.approx(20)


def test_one_new_token_has_no_decode() -> None:
    model = build("clip-llama-mha")
    result = compare(model, prompts(model, [9]), FITPRUNE, new_tokens=1, repeats=1, warmup=0)
    assert result.pruned.decode_ms_per_token is None
    assert result.pruned.decode_iqr_ms is None
    assert result.decode_ratio is None
    assert result.pruned.end_to_end_ms >= result.pruned.prefill_ms > 0
    assert result.latency_ms()["decode_per_token"] is None


@pytest.mark.parametrize("method", METHODS)
def test_timed_decoding_gives_the_tokens_of_generate(model: nn.Module, method: str) -> None:
    assert_as_generate(model, prompts(model, [4, 17]), METHODS[method])


@pytest.mark.parametrize("method", ["none", "fastv"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_timed_decoding_of_every_family_gives_the_tokens_of_generate(family: str, method: str) -> None:
    samples = [["w1 w2 w3", (50, 27), "w4 w5"], ["w6", (30, 44), "w7"]]
    assert_as_generate(families.build(family), families.inputs(families.processor(family), samples), METHODS[method])


def test_positions_on_axes_are_those_of_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of Qwen2.5-VL takes fewer positions than tokens; a text prompt before must not change that."""
    model, encode = families.build("qwen2_5_vl"), families.processor("qwen2_5_vl")
    inputs = families.inputs(encode, [["w1 w2 w3", (50, 27), "w4 w5"], ["w6", (30, 44), "w7"]])
    seen: list[torch.Tensor] = []
    forward = model.model.language_model.forward

    def spy(*args: object, **kwargs: torch.Tensor) -> object:
        seen.append(kwargs["position_ids"][-3:, :, -1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model.language_model, "forward", spy)
    model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    expected, seen[:] = list(seen), []
    with torch.inference_mode():
        model.generate(**families.inputs(encode, [["w1 w2"], ["w3 w4"]]), max_new_tokens=2, do_sample=False)
        seen.clear()
        Subject(model, inputs, None, new_tokens=4).run()
    assert torch.equal(torch.stack(seen), torch.stack(expected))
    assert int(seen[-1].max()) < inputs["input_ids"].shape[1]


def assert_as_generate(model: nn.Module, inputs: dict[str, torch.Tensor], method: Pruner | None) -> None:
    subject = Subject(model, inputs, method, new_tokens=5)
    with torch.inference_mode(), subject.context():
        expected = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=0)
        state = subject.prefill()
        tokens = [state.token]
        for _ in range(4):
            state = subject.step(state)
            tokens.append(state.token)
    assert torch.equal(torch.cat(tokens, 1), expected[:, inputs["input_ids"].shape[1] :])


def test_kv_bytes_by_arithmetic(model: nn.Module) -> None:
    text = model.config.text_config
    per_token = 2 * text.num_key_value_heads * 16 * 4
    inputs = prompts(model, [9, 9])
    # 12 text tokens and the 36 visual ones that enter each layer; the last of 4 new tokens is never cached.
    dense = measure(model, inputs, None, new_tokens=4, repeats=1, warmup=0).kv_bytes
    assert dense == 2 * 5 * (48 + 3) * per_token
    pruned = measure(model, inputs, FITPRUNE, new_tokens=4, repeats=1, warmup=0).kv_bytes
    assert pruned == 2 * sum(12 + visual + 3 for visual in (36, 36, 27, 27, 14)) * per_token
    fastv = measure(model, inputs, METHODS["fastv"], new_tokens=1, repeats=1, warmup=0).kv_bytes
    assert fastv == 2 * sum(12 + visual for visual in (36, 36, 18, 18, 18)) * per_token


def test_kv_bytes_of_an_empty_cache() -> None:
    assert kv_bytes(DynamicCache()) == 0


def test_peak_memory_on_the_cpu_is_exact() -> None:
    def work() -> None:
        first = torch.empty(1_000_000)
        second = torch.empty(500_000)
        del first
        third = torch.empty(100_000)
        del second, third

    before = torch.empty(10_000_000)
    assert peak_cpu_bytes(work) == 6_000_000
    assert before.nbytes == 40_000_000


def test_tied_weights_count_once() -> None:
    weight, other = torch.empty(10, 10), torch.empty(3)
    assert distinct_bytes([weight, weight.view(100), other]) == 412


def test_memory_of_a_model() -> None:
    model = build("clip-llama-mha", image_size=128)
    inputs = prompts(model, [9])
    recipe = Recipe(drop=[256, 0, 0, 0, 0], visual_tokens=256)
    result = compare(model, inputs, FitPrune(recipe), new_tokens=2, repeats=1, warmup=0)
    weights = sum(parameter.nbytes for parameter in model.parameters()) + sum(b.nbytes for b in model.buffers())
    resident = weights + sum(tensor.nbytes for tensor in inputs.values())
    for side in (result.dense, result.pruned):
        assert side.memory_mb * 1e6 - side.working_mb * 1e6 == pytest.approx(resident)
        assert side.working_mb * 1e6 > side.kv_bytes
    assert result.kv_ratio == result.pruned.kv_bytes / result.dense.kv_bytes < 0.4
    assert result.working_memory_ratio == result.pruned.working_mb / result.dense.working_mb
    again = measure(model, inputs, FitPrune(recipe), new_tokens=2, repeats=1, warmup=0)
    assert again.working_mb == pytest.approx(result.pruned.working_mb, rel=0.01)


def test_the_dense_model_s_memory_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("clip-llama-mha")
    inputs, options = prompts(model, [9]), {"new_tokens": 2, "repeats": 1, "warmup": 0}
    first = compare(model, inputs, FITPRUNE, **options)
    asked, memory = [], Subject.memory
    monkeypatch.setattr(Subject, "memory", lambda subject: asked.append(subject.pruner) or memory(subject))
    second = compare(model, inputs, FITPRUNE, **options, known=first.dense)
    assert asked == [FITPRUNE]
    found = [(one.dense.working_mb, one.dense.memory_mb, one.dense.kv_bytes, one.kv_ratio) for one in (first, second)]
    assert found[0] == found[1]
    assert second.dense.prefill_ms != first.dense.prefill_ms


def test_measuring_leaves_no_pruner_behind() -> None:
    model = build("clip-llama-mha")
    inputs = prompts(model, [9])
    with torch.inference_mode():
        before = model(**inputs).logits
        assert isinstance(compare(model, inputs, FITPRUNE, new_tokens=2, repeats=1, warmup=1), Comparison)
        assert torch.equal(model(**inputs).logits, before)


def test_inputs_without_a_mask() -> None:
    model = build("clip-llama-mha")
    inputs = prompts(model, [9])
    del inputs["attention_mask"]
    assert measure(model, inputs, FITPRUNE, new_tokens=2, repeats=1, warmup=0).kv_bytes > 0
    assert "attention_mask" not in inputs


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"new_tokens": 0}, "new_tokens must be at least 1, got 0"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
    ],
)
def test_bad_counts_are_refused(counts: dict[str, int], message: str) -> None:
    model = build("clip-llama-mha")
    inputs = prompts(model, [9])
    with pytest.raises(FitPruneError, match=message):
        measure(model, inputs, **counts)
    with pytest.raises(FitPruneError, match=message):
        compare(model, inputs, FITPRUNE, **counts)


def test_other_devices_are_refused() -> None:
    inputs = {"input_ids": torch.ones(1, 3, dtype=torch.long, device="meta")}
    with pytest.raises(FitPruneError, match="CPU or CUDA, got device 'meta'"):
        measure(None, inputs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda() -> None:
    model = build("clip-llama-gqa").cuda()
    inputs = {key: value.cuda() for key, value in prompts(model, [9, 9]).items()}
    result = compare(model, inputs, FITPRUNE, new_tokens=4, repeats=3, warmup=1, energy=True)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert result.dense.kv_bytes == 2 * 5 * 51 * 2 * 2 * 16 * 4
    for side in (result.dense, result.pruned):
        assert side.prefill_ms > 0
        assert side.decode_ms_per_token > 0
        assert side.end_to_end_ms >= side.prefill_ms
        assert side.memory_mb * 1e6 >= weights
        assert side.working_mb * 1e6 >= side.kv_bytes
        assert side.device == torch.cuda.get_device_name()
        assert (side.energy_j is None) == any(note.startswith("energy is not known") for note in side.notes)
        assert side.energy_j is None or side.energy_j > 0
    assert result.latency_ms()["on"] == torch.cuda.get_device_name()
