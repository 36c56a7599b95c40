"""As many workers start as the cards have memory for. No card is here: torch's answers are made up."""

import json
import subprocess

import pytest
import torch

from harness.models import gpu_memory
from harness.models.gpu_memory import gpu_bytes, worker_bytes
from harness.models.registry import MODELS
from harness.models.shipped import family_of, read_config
from harness.plugin.cards import Dealt, deal
from harness.results.store import Store
from tests.support.suite_runs import SUITES, command, environment

pytest_plugins = ["pytester", "tests.support.suite_runs"]
GB = 10**9


@pytest.fixture
def cards(monkeypatch):
    """Cards with these many gigabytes free, and models that need 10 for a batch of 16, `large` 20."""
    needs = {"small": 10 * GB, "large": 20 * GB, "odd": None}
    monkeypatch.setattr("harness.plugin.cards.worker_bytes", lambda model, batch: needs[model])

    def set_to(*free):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (free[card] * GB, 80 * GB))

    return set_to


def test_workers_are_dealt_out_while_there_is_room(cards):
    cards(35, 12)
    assert deal(2, None, ["small"], 16) == Dealt(("cuda:0", "cuda:1"))
    dealt = deal(8, None, ["small"], 16)
    assert dealt.devices == ("cuda:0", "cuda:1", "cuda:0", "cuda:0")
    assert dealt.note == (
        "4 of 8 workers start: small takes some 10.0 GB for batches of 16, "
        "and there are 35.0 GB free on cuda:0, 12.0 GB free on cuda:1"
    )
    assert deal(8, None, ["small", "large"], 16).devices == ("cuda:0",)  # the larger of the two decides


def test_a_card_that_was_asked_for_is_the_only_one(cards):
    cards(35, 12)
    assert deal(8, "cuda:1", ["small"], 16).devices == ("cuda:1",)
    assert deal(8, "cuda", ["small"], 16).devices == ("cuda:0",) * 3
    assert deal(8, "auto", ["small"], 16).devices == ("auto",) * 4


def test_one_worker_starts_where_there_is_room_for_none(cards):
    cards(3, 5)
    assert deal(8, None, ["small"], 16).devices == ("cuda:1",)
    assert deal(8, "auto", ["small"], 16).devices == ("auto",)


def test_where_nothing_is_known_or_no_card_is_in_question_all_start(cards):
    cards(35)
    assert deal(8, "cpu", ["small"], 16) is None
    assert deal(8, None, ["odd"], 16) is None
    cards()
    assert deal(8, None, ["small"], 16) is None


def test_a_batch_needs_weights_once_and_all_else_for_each_prompt():
    spec = MODELS["llava-1.5-7b"]
    config = read_config(spec)
    view = family_of(spec, config).view(config, 1024, 768)
    one, two, four = (gpu_bytes(config, spec.parameters, "float16", view, batch) for batch in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), abs=4)
    prompt = 576 + 64
    each = 2 * 32 * 4096 * (prompt + 128) * 2 + prompt * (6 * 4096 + 3 * 11008) * 2 + 4 * config["text_config"]["vocab_size"]
    assert two - one == pytest.approx(each, abs=2)


def test_a_models_need_is_that_of_its_configuration_and_weights(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for name in ("llava-tiny", "llava-next-tiny", "llava-hr-tiny"):
        spec = MODELS[name]
        config = read_config(spec)
        view = family_of(spec, config).view(config, 1024, 768)
        with open(gpu_memory.weight_files(gpu_memory.checkpoint_folder(spec))[0], "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total = sum(torch.Size(entry["shape"]).numel() for entry in header.values() if "shape" in entry)
        assert worker_bytes(name, 16) == gpu_bytes(config, total, "bfloat16", view, 16)


def test_the_header_says_how_many_workers_start_and_no_more_do(place, tmp_path):
    need = worker_bytes(str(place / "m"), 16)
    (tmp_path / "carded.py").write_text(
        "import torch\n"
        "torch.cuda.device_count = lambda: 1\n"
        f"torch.cuda.mem_get_info = lambda card: ({5 * need // 2}, 80 * 10**9)\n"
    )
    around = environment(tmp_path)
    around |= {"PYTHONPATH": f"{around['PYTHONPATH']}:{tmp_path}"}
    given = command(place, tmp_path, "-p", "carded", "-n", "4", "--pruner", "random,fastv", "--reduction", "0.3,0.5")
    ran = subprocess.run([*given, str(SUITES / "test_gqa.py")], env=around, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if "workers start" in line]
    assert line.startswith("2 of 4 workers start: ")
    assert {result.latency_ms["processes"] for result in Store(tmp_path / "results").read_all().results} == {2}
