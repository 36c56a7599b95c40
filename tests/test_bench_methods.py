"""The benchmark per method: every method has its row or its reason, and a slow one is found. No test depends on real times."""

import dataclasses
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from baselines.between_layers.fastv import FastV
from baselines.controls.random_pruning import Random
from baselines.registry import PRUNERS
from fitprune import Pruner
from harness.cost.flops import count
from harness.latency.run import prompt_flops
from tests.benchmarks import bench_methods
from tests.benchmarks.bench_methods import OwnTime, main, random_model, scoring_ms
from tests.support import warm
from tests.support.random_llava import build, prompts

ROOT = Path(__file__).parents[1]
SMALL = ["--width", "64", "--layers", "5", "--repeats", "1", "--device", "cpu"]


@pytest.fixture
def ratio(monkeypatch):
    """Set the prefill ratio that every comparison will find."""
    found = SimpleNamespace(value=0.8)
    own = bench_methods.compare

    def compare(*arguments, **options):
        return dataclasses.replace(own(*arguments, **options), prefill_ratio=found.value)

    monkeypatch.setattr(bench_methods, "compare", compare)
    return found


def lines(text):
    """First cell → cells of the table's rows."""
    return {
        row[0]: row for row in ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()) if row[1:]
    }


def test_as_typed():
    words = [*SMALL, "--pruner", "random,fastv", "--reduction", "0.3,0.9", "--strict", "off"]
    done = subprocess.run(
        [warm.python(), "-m", "tests.benchmarks.bench_methods", *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    table = lines(done.stdout)
    assert [name for name in table if re.match(r"\w+ 0\.\d", name)] == ["random 0.3", "random 0.9", "fastv 0.3"]
    assert "fastv 0.9: cannot: FastV with K=2 cannot save 90.0%" in done.stdout
    assert "random weights, 5 decoder layers" in done.stdout
    assert "576 visual and 64 text tokens" in done.stdout
    assert "slower than dense" not in done.stderr


@pytest.mark.exhaustive
def test_every_method_has_its_row_or_its_reason(ratio, capsys):
    assert main([*SMALL, "--reduction", "0.5"]) == 0
    text = capsys.readouterr().out
    for name in PRUNERS:
        assert (f"{name} 0.5" in lines(text)) + (f"{name} 0.5: cannot: " in text) == (name != "dense")


@pytest.mark.exhaustive
def test_a_slow_method_is_named_unless_its_class_says_why(ratio, capsys, monkeypatch):
    words = [*SMALL, "--pruner", "random,fastv", "--reduction", "0.3,0.5"]
    ratio.value = 1.2
    assert main(words) == 1
    assert capsys.readouterr().err == "slower than dense at reduction 0.5: random, fastv\n"
    words[-1] = "0.5"
    assert main([*words, "--strict", "off"]) == 0
    assert "slower than dense at reduction 0.5: random, fastv" in capsys.readouterr().err
    monkeypatch.setattr(Random, "slow", "it draws by hand", raising=False)
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.err == "slower than dense at reduction 0.5: fastv\n"
    assert lines(captured.out)["random 0.5"][-1] == "it draws by hand"
    assert main([*SMALL, "--pruner", "random", "--reduction", "0.5"]) == 0
    assert main([*SMALL, "--pruner", "fastv", "--reduction", "0.3"]) == 0


def test_flops_of_a_row_are_those_of_the_whole_prefill(ratio, capsys):
    assert main([*SMALL, "--pruner", "fastv", "--reduction", "0.3"]) == 0
    row = lines(capsys.readouterr().out)["fastv 0.3"]
    timed = random_model(64, 5, torch.device("cpu"))
    tower = timed.model.config.vision_config
    assert (tower.hidden_size, tower.num_hidden_layers, tower.model_type) == (16, 3, "clip_vision_model")
    inputs = prompts(timed.model, [61])  # 3 tokens before the image, as many as 64 in all
    inputs["input_ids"][inputs["input_ids"] == 99] = timed.model.config.image_token_id
    pruner = FastV.for_reduction(timed.model.config, 0.3)
    cost, dense = count(timed.model, inputs, pruner), count(timed.model, inputs)
    assert cost.vision == dense.vision > 0
    assert row[1] == f"{cost.scoring / prompt_flops(dense):.2%}"
    assert row[3] == f"{prompt_flops(cost) / prompt_flops(dense):.3f}"


def test_methods_on_videos_have_a_table_of_their_own(ratio, capsys):
    ratio.value = 1.2
    assert main([*SMALL, "--pruner", "evs,random", "--reduction", "0.5"]) == 1
    captured = capsys.readouterr()
    pictures, videos = captured.out.split("random LLaVA-OneVision, a video, random weights, 5 decoder layers")
    assert "576 visual and 64 text tokens" in pictures
    assert "589 visual and 64 text tokens" in videos
    assert [name for table in (pictures, videos) for name in lines(table) if name.endswith("0.5")] == ["random 0.5", "evs 0.5"]
    assert "cannot" not in captured.out
    assert captured.err.splitlines() == [f"slower than dense at reduction 0.5: {name}" for name in ("random", "evs")]
    assert main([*SMALL, "--pruner", "evs", "--reduction", "0.5", "--strict", "off"]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("random LLaVA-OneVision")
    assert 0.5 < float(lines(alone)["evs 0.5"][3]) < 1


@dataclass
class Slow(Pruner):
    """Takes 2 ms of a test's clock before each layer, and 5 after the attention of the first."""

    name: ClassVar[str] = "slow"

    def before_layer(self, layer, tokens):
        clock.now += 2e-3

    def observed_layers(self, layers):
        clock.now += 100
        return [0]

    def after_attention(self, layer, tokens, attention):
        clock.now += 5e-3


clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)


def test_only_the_method_s_own_time_counts(monkeypatch):
    monkeypatch.setattr(bench_methods, "time", clock)
    model = build("clip-llama-mha")
    inputs = prompts(model, [9])
    forward = model.lm_head.forward

    def slow_head(hidden):
        clock.now += 50
        return forward(hidden)

    monkeypatch.setattr(model.lm_head, "forward", slow_head)
    pruner = Slow()
    assert scoring_ms(model, inputs, pruner, repeats=3) == pytest.approx(5 * 2 + 5)
    assert vars(pruner) == vars(Slow())
    assert scoring_ms(model, inputs, FastV(), repeats=1) == 0


def test_a_watched_pruner_prunes_as_before():
    model = build("clip-llama-mha")
    inputs = prompts(model, [9, 4])
    for pruner in (Random(0.5), FastV()):
        watched = OwnTime(torch.device("cpu")).watch(pruner)
        seen = []
        for each in (pruner, watched):
            with torch.inference_mode(), each(model) as trace:
                model(**inputs)
            seen.append(trace.kept)
        assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pruner", "fastvv"], "unknown pruner 'fastvv'; did you mean fastv "),
        (["--reduction", "2"], "--reduction 2 is not between 0 and 1"),
        (["--model", "llava-tinny"], "unknown model 'llava-tinny'"),
    ],
)
def test_input_that_cannot_be_used(words, message, capsys):
    assert main([*SMALL, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_registered_model(ratio, capsys):
    words = ["--model", "llava-next-tiny", "--image-size", "300x200", "--layers", "3", "--pruner", "random", "--repeats", "1"]
    assert main([*words, "--reduction", "0.5", "--device", "cpu", "--text-tokens", "8"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("llava-next-tiny, random weights, 3 decoder layers, torch.float32, cpu")
    assert "random 0.5" in lines(text)
