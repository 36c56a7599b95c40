"""NVML, through a stand-in for its Python module: which GPU is meant, what is read of it, what is said where it cannot be."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from fitprune import FitPrune, Recipe
from harness.latency import nvml
from harness.latency.measure import compare, measure
from harness.latency.nvml import Gpu, Watch, find_handle, watched
from harness.latency.subject import Subject
from tests.support.fake_nvml import FakeNvml, NVMLError, NVMLLibraryMismatchError
from tests.support.random_llava import build, prompts

CUDA = torch.device("cuda:0")
OWN = os.getpid()


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(nvml, "time", clock)
    return clock


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Make a fake module the one that is imported, and torch's devices those with these UUIDs, in this order."""

    def with_module(module: FakeNvml, *uuids: str) -> FakeNvml:
        monkeypatch.setitem(sys.modules, "pynvml", module)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuids[device.index]))
        return module

    return with_module


def gpu(**has: object) -> Gpu:
    module = FakeNvml(GPU_a=has)
    return Gpu(module, module.gpus["GPU-a"], "cuda:0")


def test_a_gpu_is_found_by_its_uuid_whatever_its_number():
    module = FakeNvml(GPU_a={}, GPU_b={}, MIG_c={})
    for uuid, key in (("b", "GPU-b"), ("a", "GPU-a"), ("c", "MIG-c")):
        assert find_handle(module, SimpleNamespace(uuid=uuid)) is module.gpus[key]


def test_else_by_its_pci_address():
    module = FakeNvml(GPU_a={"pci": "00000000:0A:00.0"}, GPU_b={"pci": "00000001:C1:02.0"})
    properties = SimpleNamespace(uuid="z", pci_domain_id=1, pci_bus_id=0xC1, pci_device_id=2)
    assert find_handle(module, properties) is module.gpus["GPU-b"]
    for unknown in (SimpleNamespace(uuid="z"), SimpleNamespace(uuid="z", pci_domain_id=0, pci_bus_id=3, pci_device_id=0)):
        with pytest.raises(NVMLError, match="Not Found"):
            find_handle(module, unknown)


def test_the_visible_devices_are_torch_s(install):
    """With CUDA_VISIBLE_DEVICES=1 the only device of torch is the second of NVML."""
    module = install(FakeNvml(GPU_a={"energy": lambda: 1}, GPU_b={"energy": lambda: 2}), "b")
    with watched([CUDA, CUDA, torch.device("cpu")]) as (gpus, notes):
        assert module.inits == 1
        assert [(one.name, one.energy_mj()) for one in gpus] == [("cuda:0", 2)]
        assert notes == []
    assert module.inits == 0


def test_nvml_is_let_go_of_after_an_error(install):
    module = install(FakeNvml(GPU_a={}), "a")
    with pytest.raises(ZeroDivisionError), watched([CUDA]):
        raise ZeroDivisionError
    assert module.inits == 0


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with watched([CUDA]) as (gpus, notes):
        assert gpus == []
        assert len(notes) == 1
        assert "pip install 'fitprune-bench[gpu]'" in notes[0]


def test_without_the_library_or_the_gpu(install):
    module = install(FakeNvml(), "a")
    with watched([CUDA]) as (gpus, notes):
        assert (gpus, len(notes)) == ([], 1)
        assert "cuda:0 are not seen: NVML says 'Not Found'" in notes[0]
    module.broken = NVMLError(12)
    with watched([CUDA]) as (gpus, notes):
        assert (gpus, len(notes)) == ([], 1)
        assert "NVML Shared Library Not Found" in notes[0]
    assert module.inits == 0


def test_the_cpu_needs_no_nvml(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with watched([torch.device("cpu")]) as found:
        assert found == ([], [])


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"event_reasons": 0x0}, []),
        ({"event_reasons": 0x1}, []),  # idle
        ({"event_reasons": 0x2}, []),  # clocks that somebody set
        ({"event_reasons": 0x4 | 0x40}, ["its power limit", "heat (hardware)"]),
        ({"event_reasons": 0x0, "throttle_reasons": 0x8}, []),
        ({"throttle_reasons": 0x8 | 0x20 | 0x80}, ["a hardware slowdown", "heat (software)", "a power brake"]),
        ({}, []),
    ],
)
def test_slowdowns(has, expected):
    assert gpu(**has).slowdowns() == expected


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"pids": [OWN]}, 0),
        ({"pids": [OWN, OWN + 1, OWN + 2]}, 2),
        ({"pids": [OWN + 1]}, 0),  # this process, by its number outside its container
        ({"pids": [OWN + 1, OWN + 2]}, 1),
        ({"pids": []}, None),
        ({}, None),
    ],
)
def test_other_processes(has, expected):
    assert gpu(**has).others() == expected


def test_energy_of_a_whole_gpu_only():
    assert gpu(energy=lambda: 12).energy_mj() == 12
    assert gpu(energy=lambda: 12, mig=0).energy_mj() == 12
    assert gpu(energy=lambda: 12, mig=1).energy_mj() is None
    assert gpu(mig=0).energy_mj() is None


def test_what_a_watch_remembers():
    hot = gpu(event_reasons=0x20, pids=[OWN, 1])
    watch = Watch([hot], ["something is not seen"])
    watch.look()
    hot.handle.event_reasons, hot.handle.pids = 0x0, [OWN, 1, 2]
    watch.look()
    hot.handle.pids = [OWN]
    watch.look()
    assert watch.notes() == (
        "something is not seen",
        "cuda:0 was slowed down by heat (software) in 1 of 3 repeats",
        "cuda:0 was shared with 2 other processes",
    )
    quiet = Watch([gpu(event_reasons=0x1, pids=[OWN])])
    quiet.look()
    assert quiet.notes() == ()


def test_energy_per_call_over_a_window_in_which_the_counter_moves(clock):
    """300 W; the counter steps every 0.1 s, a call takes 0.03 s."""
    watch = Watch([gpu(energy=lambda: 5_000_000 + 30_000 * int(clock.now * 10))])
    calls = []

    def call() -> None:
        calls.append(clock.now)
        clock.now += 0.03

    spent = watch.joules_per_call(call)
    assert len(calls) == pytest.approx(nvml.WINDOW_S / 0.03, abs=1.01)
    assert spent == pytest.approx(300 * 0.03, rel=0.1 / nvml.WINDOW_S)
    assert watch.notes() == ()


def test_energy_of_several_gpus_is_their_sum(clock):
    both = [gpu(energy=lambda: int(1e6 * clock.now)), gpu(energy=lambda: int(2e6 * clock.now))]

    def call() -> None:
        clock.now += 0.5

    assert Watch(both).joules_per_call(call) == pytest.approx(3000 * 0.5)
    assert Watch([both[0], gpu()]).joules_per_call(call) is None


def test_a_counter_that_stands_still(clock):
    watch = Watch([gpu(energy=lambda: 7)])

    def call() -> None:
        clock.now += 1

    start = clock.now
    assert watch.joules_per_call(call) is None
    assert clock.now - start == nvml.LIMIT_S
    assert watch.notes() == ("energy is not known: the counter did not move in 10 s",)


def test_no_counter_no_calls():
    for gpus in ([], [gpu()]):
        watch = Watch(gpus)
        assert watch.joules_per_call(lambda: pytest.fail("was called")) is None
        assert watch.notes() == ("energy is not known: no counter of a whole NVIDIA GPU can be read",)


def test_a_latency_carries_energy_and_notes(monkeypatch, clock):
    """With GPUs put under a model on the CPU: a dense answer costs 4 J, a pruned one 1 J, whatever they really take."""
    model = build("clip-llama-mha")
    inputs = prompts(model, [9, 9])
    spent = [0]
    one = gpu(energy=lambda: spent[0], event_reasons=0x4, pids=[OWN, 1])

    class Given:
        def __enter__(self):
            return [one], []

        def __exit__(self, *error):
            return None

    def answer(subject):
        spent[0] += 2 * (4000 if subject.pruner is None else 1000)
        clock.now += 0.4
        return own(subject)

    own = Subject.answer
    monkeypatch.setattr("harness.latency.measure.watched", lambda devices: Given())
    monkeypatch.setattr(Subject, "answer", answer)
    pruner = FitPrune(Recipe(drop=[0, 9, 0, 13, 4], visual_tokens=36))
    result = compare(model, inputs, pruner, new_tokens=2, repeats=3, warmup=1, energy=True)
    assert (result.dense.energy_j, result.pruned.energy_j) == (4.0, 1.0)
    assert result.energy_ratio == 0.25
    expected = ["cuda:0 was slowed down by its power limit in 3 of 3 repeats", "cuda:0 was shared with 1 other process"]
    assert result.notes() == result.latency_ms()["notes"] == expected
    assert measure(model, inputs, pruner, new_tokens=2, repeats=1, warmup=0).energy_j is None


def test_a_latency_on_the_cpu_says_so():
    model = build("clip-llama-mha")
    pruner = FitPrune(Recipe(drop=[0, 9, 0, 13, 4], visual_tokens=36))
    asked, unasked = (
        compare(model, prompts(model, [9]), pruner, new_tokens=1, repeats=1, warmup=0, energy=energy)
        for energy in (True, False)
    )
    assert asked.latency_ms()["on"] == unasked.latency_ms()["on"] == "cpu"
    assert (asked.pruned.energy_j, asked.energy_ratio) == (None, None)
    assert asked.notes() == ["energy is not known: no counter of a whole NVIDIA GPU can be read"]
    assert unasked.notes() == []


def test_the_fake_has_the_calls_of_the_real_module():
    """Names and errors as in nvidia-ml-py, where it is installed."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed (the extra `gpu`)")
    for name in dir(FakeNvml):
        if name.startswith(("nvml", "NVML")):
            assert hasattr(pynvml, name)
    assert issubclass(pynvml.NVMLError, Exception)
    assert not issubclass(pynvml.NVMLLibraryMismatchError, pynvml.NVMLError)
    assert issubclass(NVMLLibraryMismatchError, Exception)
