"""What `fitprune latency` measures: pruners against the dense model, budget by budget and batch size by batch size.

The record is a JSON object of its own kind. It has no score and no suite, its `schema` is not that of a result, and its prompts
are noise: neither the results store nor a leaderboard takes it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from baselines.registry import get_pruner_class
from fitprune import FitPruneError, Pruner
from harness.cells import DENSE
from harness.cost.flops import FlopCount, count
from harness.latency.asked import RANDOM, Asked
from harness.latency.measure import Comparison, compare, measure
from harness.latency.subject import device_name
from harness.latency.synthetic import random_model, random_prompt
from harness.models.loading import load_model
from harness.models.registry import find_model
from harness.models.shipped import family_of, read_config
from harness.models.spec import View
from harness.pruners.solve import Solver
from harness.results.result import now, versions
from harness.tasks.calibration import calibration_batches

SCHEMA = "latency-1"
WARMUP = 3
CALIBRATION_SAMPLES, CALIBRATION_BATCH = 32, 8
TOO_SMALL = "the GPU's memory is too small"


@dataclass
class TimedModel:
    """A model, and what its prompts look like."""

    model: Any
    device: torch.device
    revision: str
    view: View
    batches: Any
    batches_are: str

    @classmethod
    def of(cls, asked: Asked) -> "TimedModel":
        """Loaded, or made of its configuration."""
        spec = find_model(asked.model)
        record = read_config(spec)
        view = family_of(spec, record).view(record, *asked.image_size)
        device = asked.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        if asked.weights == RANDOM:
            model = random_model(spec, device, asked.layers, asked.dtype)
            single = random_prompt(model.config, view, asked.text_tokens, 1, weight(model))
            return cls(model, model.device, RANDOM, view, [single], "the timed prompt, which is noise")
        try:
            loaded = load_model(asked.model, device, asked.dtype)
        except FitPruneError as error:
            raise FitPruneError(f"{error}; times alone need no weights: --weights random") from error
        batches = calibration_batches(loaded, "mini", CALIBRATION_SAMPLES, CALIBRATION_BATCH)
        what = f"{CALIBRATION_SAMPLES} calibration scenes of the package"
        return cls(loaded.model, torch.device(loaded.device), loaded.revision, view, batches, what)

    def prompt(self, asked: Asked, batch: int) -> dict[str, torch.Tensor]:
        return random_prompt(self.model.config, self.view, asked.text_tokens, batch, weight(self.model))


def weight(model: Any) -> torch.Tensor:
    """A weight where the inputs go, in their dtype."""
    return model.get_input_embeddings().weight


def take(asked: Asked, command: str = "", keep: Callable[[Mapping[str, Any]], None] = lambda record: None) -> dict[str, Any]:
    """Measure, and return the record; `keep` is given it after each row, so that an interruption loses no more than one.

    What a method cannot do is a row under `cannot`, with the reason. `asked` is one that `check` has passed.
    """
    for name in asked.methods():
        get_pruner_class(name)
    timed = TimedModel.of(asked)
    record = _header(asked, timed, command)
    single = timed.prompt(asked, 1)
    dense_flops = count(timed.model, single)
    pruners = list(reachable(asked, timed, single, record["cannot"]))
    keep(record)
    for batch in asked.batch_sizes:
        inputs = timed.prompt(asked, batch)
        options: dict[str, Any] = {"new_tokens": asked.new_tokens, "repeats": asked.repeats, "warmup": WARMUP}
        options["energy"] = timed.device.type == "cuda"
        rows = []
        for name, reduction, pruner, origin, flops in pruners:
            try:
                compared = compare(timed.model, inputs, pruner, **options)
            except torch.OutOfMemoryError:
                record["cannot"].append(_cannot(name, reduction, TOO_SMALL, batch))
                continue
            notes = pruner.notes(timed.model)
            rows.append(_row(name, reduction, pruner, origin, batch, compared, flops, dense_flops, notes))
            record["rows"].append(rows[-1])
            keep(record)
        if rows:
            record["dense"].append(rows[0]["dense"])
        else:
            try:
                record["dense"].append(dataclasses.asdict(measure(timed.model, inputs, **options)))
            except torch.OutOfMemoryError:
                record["cannot"].append(_cannot(DENSE, None, TOO_SMALL, batch))
        keep(record)
    return record


def _header(asked: Asked, timed: TimedModel, command: str) -> dict[str, Any]:
    layers = timed.model.config.get_text_config().num_hidden_layers
    return {
        "schema": SCHEMA,
        "model": asked.model,
        "weights": asked.weights,
        "revision": timed.revision,
        "decoder_layers": layers,
        "shortened": asked.layers is not None,
        "dtype": str(timed.model.dtype).removeprefix("torch."),
        "on": device_name(timed.device),
        "device": str(timed.device),
        "threads": torch.get_num_threads(),
        "prompt": {
            "content": "one image of noise, random words",
            "image_size": list(asked.image_size),
            "visual_tokens": timed.view.tokens,
            "newline_tokens": timed.view.newlines,
            "text_tokens": asked.text_tokens,
            "new_tokens": asked.new_tokens,
        },
        "repeats": asked.repeats,
        "warmup": WARMUP,
        "command": command,
        "versions": versions(),
        "date": now(),
        "dense": [],
        "rows": [],
        "cannot": [],
    }


def reachable(
    asked: Asked, timed: TimedModel, single: Mapping[str, torch.Tensor], cannot: list[dict[str, Any]]
) -> Iterator[tuple[str, float, Pruner, str, FlopCount]]:
    """Every method at every budget that it reaches, where its parameters are from, and what its prompt costs."""
    solver = Solver(timed.model, timed.view.tokens, timed.batches, timed.batches_are)
    for name, reduction in itertools.product(asked.methods(), asked.reductions):
        try:
            pruner, origin = solver.pruner(name, reduction)
            flops = count(timed.model, single, pruner)
        except (FitPruneError, torch.OutOfMemoryError) as error:
            cannot.append(_cannot(name, reduction, str(error) if isinstance(error, FitPruneError) else TOO_SMALL))
            continue
        yield name, reduction, pruner, origin, flops


def _row(
    name: str,
    reduction: float,
    pruner: Pruner,
    origin: str,
    batch: int,
    compared: Comparison,
    flops: FlopCount,
    dense_flops: FlopCount,
    notes: list[str],
) -> dict[str, Any]:
    params = pruner.params()
    params.pop("provenance", None)
    return {
        "pruner": name,
        "reduction": reduction,
        "batch": batch,
        "params": params,
        "params_from": origin,
        "prompt_flops": prompt_flops(flops),
        "prompt_flops_ratio": prompt_flops(flops) / prompt_flops(dense_flops),
        "scoring_flops": flops.scoring,
        **dataclasses.asdict(compared),
        "notes": [*notes, *compared.notes()],
    }


def prompt_flops(cost: FlopCount) -> int:
    """FLOPs of what is timed as prefill, per prompt: tower, projector and decoder."""
    return cost.vision + cost.projector + cost.prefill


def _cannot(name: str, reduction: float | None, reason: str, batch: int | None = None) -> dict[str, Any]:
    return {"pruner": name, "reduction": reduction, "batch": batch, "reason": reason}
