"""`arrival`: what a machine is, as far as the outcome of cells depends on it, and whether it can measure the run's."""

import os
import platform

from baselines.controls.dense import Dense
from fitprune.errors import FitPruneError, one_line
from harness.bench.identity import conditions_of
from harness.cluster.messages import Arrived, Setup
from harness.models.devices import check_device, choose_dtype
from harness.models.facts import ModelFacts, device_kind, model_facts
from harness.models.gpu_memory import worker_bytes
from harness.results.result import versions
from harness.results.sources import code_digest
from harness.tasks.hub import take_commits

CODE = "code of fitprune-bench"


def own_code() -> dict[str, str]:
    """The facts that the driver, too, must share: what it says and hears is made of these sources."""
    return {CODE: code_digest(Dense)}


def arrival(setup: Setup, log: str = "") -> Arrived:
    """This machine, for workers that are set up so."""
    take_commits(setup.commits)
    facts, refusal = own_code() | {f"version of {name}": text for name, text in versions().items()}, ""
    needs: dict[str, int | None] = {}
    models: dict[str, ModelFacts] = {}
    try:
        check_device(setup.device)
        facts["device"] = device_kind(setup.device)
        dtype = str(choose_dtype(None, setup.device)).removeprefix("torch.")
        for model in setup.models:
            models[model] = model_facts(model, setup.device)
            facts[f"weights of {model}"] = models[model].weights
            needs[model] = worker_bytes(model, setup.settings.batch_size, "cpu" if facts["device"] == "cpu" else "cuda")
        known = conditions_of(setup.settings)
        for suite in setup.suites:
            of = known(suite, dtype)
            facts |= {f"data of {suite}": of["data_digest"], f"lmms-eval's code of {suite}": of["task_code"]}
    except (FitPruneError, OSError) as error:
        refusal = one_line(error)
    return Arrived(platform.node(), facts, refusal, needs, _room(facts.get("device", "cpu")), models, log)


def _room(device: str) -> int:
    """Bytes of memory of a card, or of the machine."""
    if device == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    import torch

    return torch.cuda.get_device_properties(0).total_memory


def differing(first: Arrived, other: Arrived) -> str:
    """In what two machines differ so that their figures could, in words; empty if in nothing."""
    for name in sorted({*first.facts, *other.facts}):
        here, there = (machine.facts.get(name, "none") for machine in (first, other))
        if here != there:
            return (
                f"machine {other.machine} has another {name} than {first.machine}: {there}, not {here}; "
                "their answers could differ: make it the same on all machines of the cluster"
            )
    return ""
