"""`fitprune latency`: what it measures, prints, writes and refuses. No test depends on how long something took."""

import argparse
import json
import shlex
from types import SimpleNamespace

import pytest
import torch

from baselines.controls.random_pruning import Random
from baselines.registry import PRUNERS
from fitprune import FitPrune, Recipe
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.recipe_text import nearest_published
from harness.__main__ import main
from harness.commands import latency as command
from harness.latency import run as latency_run
from harness.latency.asked import Asked
from harness.latency.rows import markdown
from harness.latency.run import take
from harness.models.registry import MODELS
from harness.models.shipped import transformers_config
from harness.pruners.solve import Solver
from harness.results.store import Store

pytestmark = pytest.mark.releases
BASE = ["latency", "--model", "llava-tiny", "--weights", "random", "--layers", "3", "--repeats", "2", "--new-tokens", "3"]
BASE += ["--text-tokens", "8", "--device", "cpu"]
TINY = Asked(
    "llava-tiny",
    ("random",),
    weights="random",
    layers=3,
    repeats=2,
    new_tokens=3,
    text_tokens=8,
    batch_sizes=(1, 2),
    device="cpu",
)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """What the command, as typed, wrote; and what it printed."""
    file = tmp_path_factory.mktemp("latency") / "tiny.json"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        words = [*BASE, "--pruner", "dense,fitprune,fastv", "--reduction", "0.3,0.95", "--batch-size", "1,2", "-o", str(file)]
        assert main(words) == 0
    return SimpleNamespace(json=json.loads(file.read_text()), text="\n".join(printed), file=file)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.exhaustive
def test_the_record_says_what_was_measured_on_what(record):
    found = record.json
    assert (found["schema"], found["model"], found["weights"], found["revision"]) == (
        "latency-1",
        "llava-tiny",
        "random",
        "random",
    )
    assert (found["decoder_layers"], found["shortened"], found["dtype"]) == (3, True, "float32")
    assert (found["on"], found["device"], found["threads"]) == ("cpu", "cpu", torch.get_num_threads())
    assert found["prompt"]["visual_tokens"] == 144
    assert (found["prompt"]["text_tokens"], found["prompt"]["new_tokens"]) == (8, 3)
    assert found["versions"]["torch"] == torch.__version__
    assert [dense["batch"] for dense in found["dense"]] == [1, 2]
    assert [(row["pruner"], row["reduction"], row["batch"]) for row in found["rows"]] == [
        (name, 0.3, batch) for batch in (1, 2) for name in ("fitprune", "fastv")
    ]
    for row in found["rows"]:
        origin = "fitted on the timed prompt, which is noise" if row["pruner"] == "fitprune" else ""
        assert row["params_from"] == origin
        assert row["prefill_ratio_iqr"][0] <= row["prefill_ratio"] <= row["prefill_ratio_iqr"][1]
        assert row["pruned"]["device"] == row["dense"]["device"] == "cpu"
        assert row["pruned"]["energy_j"] is None
        assert 0.5 < row["prompt_flops_ratio"] < 1


def test_what_a_method_cannot_do_is_said(record):
    reasons = {(gap["pruner"], gap["reduction"]): gap["reason"] for gap in record.json["cannot"]}
    assert set(reasons) == {("fitprune", 0.95), ("fastv", 0.95)}
    assert "cannot save 95.0%" in reasons["fastv", 0.95]
    assert f"- fastv 0.95: cannot: {reasons['fastv', 0.95]}" in record.text


def test_kv_bytes_of_both_batch_sizes_by_arithmetic(record):
    one, two = (row for row in record.json["rows"] if row["pruner"] == "fitprune")
    config = transformers_config(MODELS["llava-tiny"]).get_text_config()
    head = config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_key_value_heads * head * 4
    assert one["dense"]["kv_bytes"] == 3 * (144 + 8 + 2) * per_token
    assert two["dense"]["kv_bytes"] == 2 * one["dense"]["kv_bytes"]
    drop = one["params"]["drop"]
    entering = [144 - sum(drop[:layer]) for layer in range(3)]
    assert one["pruned"]["kv_bytes"] == sum(visual + 8 + 2 for visual in entering) * per_token


def test_the_table_is_markdown_and_marks_the_cpu_and_random_weights(record):
    text = record.text
    assert "**llava-tiny**, random weights, 3 decoder layers (shortened), float32, on the CPU (threads: " in text
    assert "These are figures of a CPU." in text
    assert "of accuracy these figures say nothing" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    header = cells(table[0])
    assert [name for name in header if "ms" in name] == ["prefill ms (CPU)", "decode ms/token (CPU)", "end to end ms (CPU)"]
    assert not any("J/answer" in name for name in header)
    titles = ["dense", "fitprune 0.3", "fastv 0.3"]
    assert [cells(line)[:2] for line in table[2:]] == [[batch, title] for batch in "12" for title in titles]
    row = record.json["rows"][0]
    shown = dict(zip(header, cells(table[3]), strict=False))
    assert shown["prefill FLOPs"] == f"{row['prompt_flops_ratio']:.3f}"
    assert shown["prefill ms (CPU)"].startswith(f"{row['pruned']['prefill_ms']:.4g} (")
    assert shown["KV MB"] == f"{row['pruned']['kv_bytes'] / 1e6:.1f}"


def test_on_a_gpu_energy_stands_in_the_table_and_nothing_is_marked(record):
    on_gpu = json.loads(json.dumps(record.json)) | {"on": "NVIDIA X", "weights": "checkpoint", "shortened": False}
    on_gpu["dense"][0]["energy_j"] = 8.0
    on_gpu["rows"][0]["pruned"]["energy_j"], on_gpu["rows"][0]["energy_ratio"] = 6.0, 0.75
    on_gpu["rows"][0]["notes"] = ["cuda:0 was shared with 1 other process"]
    text = markdown(on_gpu)
    assert "float32, on NVIDIA X: " in text
    assert "CPU" not in text
    assert "accuracy" not in text
    table = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert table[0][-2:] == ["J/answer", "of dense"]
    assert [row[-2:] for row in table[2:]] == [["8", ""], ["6", "0.75"], ["–", "–"], ["–", ""], ["–", "–"], ["–", "–"]]
    assert "- fitprune 0.3, batch 1: cuda:0 was shared with 1 other process" in text


def test_a_results_folder_takes_no_such_record(record):
    stored = Store(record.file.parent).read_all()
    assert stored.results == []
    assert len(stored.notes) == 1
    assert not {"score", "dense_score", "drop", "suite", "metric"} & {*record.json, *record.json["rows"][0]}


def test_the_command_measures_the_same_again(record):
    words = shlex.split(record.json["command"])
    assert words[:2] == ["fitprune", "latency"]
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command._asked(parser.parse_args(words[2:])) == Asked(
        "llava-tiny",
        ("dense", "fitprune", "fastv"),
        (0.3, 0.95),
        (1, 2),
        "random",
        text_tokens=8,
        new_tokens=3,
        repeats=2,
        device="cpu",
        layers=3,
    )


@pytest.mark.exhaustive
def test_real_weights(tmp_path, capsys):
    file = tmp_path / "latency.json"
    words = ["--pruner", "fitprune", "--repeats", "1", "--new-tokens", "1", "--device", "cpu", "-o", str(file)]
    assert main(["latency", "--model", "llava-tiny", *words]) == 0
    found = json.loads(file.read_text())
    assert (found["weights"], found["decoder_layers"], found["shortened"]) == ("checkpoint", 8, False)
    assert len(found["revision"]) == 12
    assert found["rows"][0]["params_from"] == "fitted on 32 calibration scenes of the package"
    assert found["rows"][0]["decode_ratio"] is None
    assert "checkpoint weights" in capsys.readouterr().out


def test_all_methods_are_asked_for_by_default():
    assert Asked("llava-tiny").methods() == [name for name in PRUNERS if name != "dense"]
    assert Asked("llava-tiny", ("dense",)).methods() == []


def test_the_dense_model_alone():
    found = take(Asked("llava-tiny", ("dense",), weights="random", layers=2, repeats=1, new_tokens=1, device="cpu"))
    assert found["rows"] == found["cannot"] == []
    assert [dense["batch"] for dense in found["dense"]] == [1]
    assert markdown(found).count("| dense") == 1


def test_a_batch_too_large_for_the_gpu_is_named_and_the_rest_is_measured(monkeypatch):
    def compare(model, inputs, *rest, **options):
        if len(inputs["input_ids"]) == 2:
            raise torch.OutOfMemoryError
        return own(model, inputs, *rest, **options)

    own = latency_run.compare
    monkeypatch.setattr(latency_run, "compare", compare)
    monkeypatch.setattr(latency_run, "measure", compare)
    found = take(TINY)
    assert [row["batch"] for row in found["rows"]] == [dense["batch"] for dense in found["dense"]] == [1]
    assert [(gap["pruner"], gap["batch"]) for gap in found["cannot"]] == [("random", 2), ("dense", 2)]
    assert "- random 0.5, batch 2: cannot: the GPU's memory is too small" in markdown(found)
    assert "- dense, batch 2: cannot: the GPU's memory is too small" in markdown(found)


def test_a_prompt_too_large_for_the_gpu_is_named(monkeypatch):
    def count(model, inputs, pruner=None):
        if pruner is not None:
            raise torch.OutOfMemoryError
        return own(model, inputs)

    own = latency_run.count
    monkeypatch.setattr(latency_run, "count", count)
    assert [gap["reason"] for gap in take(TINY)["cannot"]] == ["the GPU's memory is too small"]


def test_an_interruption_leaves_a_whole_file_with_the_rows_so_far(monkeypatch, tmp_path):
    def compare(model, inputs, *rest, **options):
        if len(inputs["input_ids"]) == 2:
            raise KeyboardInterrupt
        return own(model, inputs, *rest, **options)

    own, file = latency_run.compare, tmp_path / "latency.json"
    monkeypatch.setattr(latency_run, "compare", compare)
    assert main([*BASE, "--pruner", "random", "--batch-size", "1,2", "-o", str(file)]) == 130
    assert [row["batch"] for row in json.loads(file.read_text())["rows"]] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["latency.json"]


def test_what_a_method_notes_on_a_model_is_in_the_table(monkeypatch):
    monkeypatch.setattr(Random, "notes", lambda pruner, model: [f"drew on {model.config.model_type}"])
    found = take(TINY)
    assert [row["notes"] for row in found["rows"]] == [["drew on llava"]] * 2
    assert "- random 0.5, batch 1: drew on llava" in markdown(found)


def test_nothing_measured_is_an_error(capsys):
    assert main([*BASE, "--pruner", "fastv", "--reduction", "0.99"]) == 2
    captured = capsys.readouterr()
    assert "- fastv 0.99: cannot: " in captured.out
    assert captured.err == "error: nothing that was asked for could be measured; the reasons stand above\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pruner", "fastvv"], "unknown pruner 'fastvv'; did you mean fastv "),
        (["--reduction", "1.5"], "--reduction 1.5 is not between 0 and 1"),
        (["--reduction", "a"], "--reduction a is not between 0 and 1"),
        (["--batch-size", "0"], "--batch-size 0 is not a whole number of at least 1"),
        (["--batch-size", "1.5"], "--batch-size 1.5 is not a whole number of at least 1"),
        (["--repeats", "0"], "--repeats 0 is not a whole number of at least 1"),
        (["--new-tokens", "0"], "--new-tokens 0 is not a whole number of at least 1"),
        (["--text-tokens", "-1"], "--text-tokens -1 is not a whole number of at least 1"),
        (["--image-size", "9"], "--image-size 9 is not WIDTHxHEIGHT in pixels"),
        (["--device", "auto"], "a latency is that of one device"),
        (["--device", "tpu9"], "unknown device 'tpu9'"),
        (["--layers", "9"], "llava-tiny has 8 decoder layers; --layers cannot be 9"),
        (["--dtype", "int8"], "unknown dtype 'int8'; write float32, bfloat16 or float16"),
        (["--weights", "checkpoint"], "--layers shortens a model with random weights; add --weights random"),
        (["--model", "llava-tinny"], "unknown model 'llava-tinny'; did you mean llava-tiny "),
        (["-o", "nowhere/latency.json"], "cannot write nowhere/latency.json: its folder does not exist"),
        (["-o", "."], "cannot write .: it is a folder"),
    ],
)
def test_input_that_cannot_be_used_is_refused_in_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([*BASE, "-o", "latency.json", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_here_are_not_needed(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["latency", "--model", "llava-1.5-7b", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.endswith("times alone need no weights: --weights random\n")


@pytest.mark.parametrize(
    ("reduction", "name"), [(0.3, "llava-1.5-7b@30"), (0.53, "llava-1.5-7b@55"), (0.99, "llava-1.5-7b@90")]
)
def test_the_authors_recipe_where_there_is_one_for_the_decoder(reduction, name):
    config = transformers_config(MODELS["llava-1.5-7b"])
    pruner, origin = Solver(SimpleNamespace(config=config), 576, [], "nothing").pruner("fitprune", reduction)
    assert isinstance(pruner, FitPrune)
    assert origin == f"published recipe {name}"
    assert pruner.recipe.drop == Recipe.load(f"published:{name}").drop


def test_it_is_scaled_to_the_prompt_and_others_have_none():
    config = transformers_config(MODELS["llava-1.5-7b"])
    pruner, _ = Solver(SimpleNamespace(config=config), 288, [], "nothing").pruner("fitprune", 0.6)
    assert pruner.recipe.visual_tokens == 288
    assert pruner.recipe.drop == Recipe.published("llava-1.5-7b", 60).schedule(288)
    config.text_config.num_hidden_layers = 8
    assert nearest_published(DecoderSizes.of(config), 0.6) is None
    assert nearest_published(DecoderSizes.of(transformers_config(MODELS["llava-next-13b"])), 0.6) is None


def test_one_more_than_ten_points_from_the_budget_is_not_taken(monkeypatch):
    class Fit(Exception):
        pass

    monkeypatch.setattr("harness.pruners.solve.Calibration", lambda *given, **options: (_ for _ in ()).throw(Fit()))
    solver = Solver(SimpleNamespace(config=transformers_config(MODELS["llava-next-7b"])), 2880, [], "nothing")
    assert solver.pruner("fitprune", 0.5)[1] == "published recipe llava-next-7b@40"
    with pytest.raises(Fit):
        solver.pruner("fitprune", 0.3)
