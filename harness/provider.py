"""What `python -m fitprune` asks of the harness: models by name, and calibration batches.

Found through the entry point group `fitprune.providers`, since the method's package imports nothing of the harness.
"""

from typing import TYPE_CHECKING, Any

from harness.models.checkpoint import require_model

if TYPE_CHECKING:
    from harness.models.loading import LoadedModel
    from harness.tasks.calibration import Batches


def check(model: str, data: str) -> None:
    """Raise a `FitPruneError` before any work if the model or the data is not there."""
    from harness.tasks.calibration import check_samples

    require_model(model)
    check_samples(data)


def load(model: str, device: str | None) -> "LoadedModel":
    """The model by registry name, hub id or local folder."""
    from harness.models.loading import load_model

    return load_model(model, device=device)


def calibration(loaded: "LoadedModel", data: str, samples: int, batch_size: int) -> "Batches":
    """Processor outputs of `samples` calibration prompts."""
    from harness.tasks.calibration import calibration_batches

    return calibration_batches(loaded, data, samples, batch_size)


def origin(loaded: "LoadedModel", data: str) -> dict[str, Any]:
    """Where a model and calibration data come from, for a recipe's provenance."""
    from harness.tasks import calibration

    return calibration.origin(loaded, data)
