"""What pruners that are timed one after another share."""

from types import SimpleNamespace

import torch

from harness.bench import timing
from harness.bench.timing import Timing
from harness.latency import measure
from harness.results.once import RunFolder


def test_inputs_are_read_and_the_dense_memory_taken_once_for_a_model_and_suite(monkeypatch, tmp_path):
    read, compared = [], []

    def sample_inputs(loaded, suite, **_):
        read.append((loaded.name, suite))
        yield {"input_ids": torch.zeros(1, 1)}

    def compare(model, inputs, pruner, tokens, *, known, **_):
        compared.append((id(inputs), known))
        side = SimpleNamespace(batch=1, repeats=2, threads=1, memory_mb=3.0, name=len(compared))
        return SimpleNamespace(pruned=side, dense=side, latency_ms=dict)

    monkeypatch.setattr(timing, "sample_inputs", sample_inputs)
    monkeypatch.setattr(measure, "compare", compare)
    shelf = SimpleNamespace(model=lambda name: SimpleNamespace(name=name, model=None))
    timed = Timing(SimpleNamespace(data="mini", frames=None), shelf, RunFolder(tmp_path))
    for label, model, suite in [("a", "m", "gqa"), ("b", "m", "gqa"), ("c", "m", "pope"), ("d", "n", "pope")]:
        cell = SimpleNamespace(model=model, suite=suite, label=lambda label=label: label)
        timed.of(SimpleNamespace(cell=cell, pruner=None))
    assert read == [("m", "gqa"), ("m", "pope"), ("n", "pope")]
    assert compared[0][0] == compared[1][0]
    assert [known and known.name for _, known in compared] == [None, 1, None, None]
