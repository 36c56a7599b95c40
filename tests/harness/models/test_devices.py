"""A device that is not on this machine is refused in one line, before any work."""

import re
import sys

import pytest
import torch

from fitprune.errors import FitPruneError
from harness import provider
from harness.__main__ import main
from harness.models import devices
from harness.models.devices import check_device, cuda_devices
from harness.models.loading import load_model


@pytest.mark.parametrize("device", ["cuda:99", "cuda", "mps", "gpu", "cuda:-1", "meta", "cuda:99999999999", ""])
def test_a_device_that_is_not_here_is_one_line_before_work(device: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("harness.models.loading.checkpoint_folder", None)
    with pytest.raises(FitPruneError, match=f"device '{device}'(; write cpu, | is not here: )") as said:
        load_model("llava-tiny", device=device)
    assert "\n" not in str(said.value)
    with pytest.raises(FitPruneError, match=f"device '{device}'(; write cpu, | is not here: )"):
        provider.load("llava-1.5", device)
    assert capsys.readouterr().err == ""  # nor a word on what the name stands for
    monkeypatch.setattr("harness.latency.run.TimedModel", None)
    monkeypatch.setattr("harness.bench.bench.Bench", None)
    for command in ("latency", "gallery") if device else ():
        assert main([command, "--model", "llava-tiny", "--device", device]) == 2
        said = capsys.readouterr().err
        assert re.match(f"error: (unknown )?device '{device}'(; write cpu, cuda, cuda:N or auto\n| is not here: )", said)
        assert said.count("\n") == 1


def test_of_the_devices_that_are_here_the_others_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in (None, "cpu", "auto", "cuda", "cuda:0", "cuda:1"):
        check_device(device)
    with pytest.raises(FitPruneError, match=r"device 'cuda:2' is not here: this machine has cuda:0 to cuda:1; take one"):
        check_device("cuda:2")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked")
def test_without_a_driver_torch_is_not_even_imported(monkeypatch, tmp_path) -> None:
    """The process that starts the workers asks for no more."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "_DRIVERS", (str(tmp_path / "none"),))
    monkeypatch.delitem(sys.modules, "torch")
    assert cuda_devices() == 0
    assert "torch" not in sys.modules
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert cuda_devices() == 2
