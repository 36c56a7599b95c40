"""What `python -m fitprune` asks of the harness: models by name, and calibration batches.

Found through the entry point group `fitprune.providers`, since the method's package imports nothing of the harness.
"""

from typing import TYPE_CHECKING, Any

from harness.models.checkpoint import require_model
from harness.models.devices import check_device
from harness.models.family_names import announced, choose_model
from harness.models.registry import find_model
from harness.models.videos.reading import require_videos

if TYPE_CHECKING:
    from harness.models.loading import LoadedModel
    from harness.tasks.calibration import Batches


def check(model: str, data: str, device: str | None, frames: int = 0) -> None:
    """Raise a `FitPruneError` before any work if the model, the data or the device is not there; where videos are shown, by so
    many frames, if the model sees none.
    """
    from harness.models.shipped import transformers_config
    from harness.tasks.calibration import check_samples

    check_device(device)
    chosen = choose_model(model).name
    require_model(chosen)
    if frames:
        require_videos(chosen, transformers_config(find_model(chosen)), "--frames")
    check_samples(data, frames > 0)


def load(model: str, device: str | None) -> "LoadedModel":
    """The model by registry name, hub id, local folder or family's name; which one that took stands on the standard error."""
    from harness.models.loading import load_model

    check_device(device)
    return load_model(announced(model).name, device=device)


def calibration(loaded: "LoadedModel", data: str, samples: int, batch_size: int, frames: int = 0) -> "Batches":
    """Processor outputs of `samples` calibration prompts; about videos where these are shown by so many frames."""
    from harness.tasks.calibration import calibration_batches

    return calibration_batches(loaded, data, samples, batch_size, frames)


def origin(loaded: "LoadedModel", data: str, frames: int = 0) -> dict[str, Any]:
    """Where a model and calibration data come from, for a recipe's provenance."""
    from harness.tasks import calibration

    return calibration.origin(loaded, data, frames)
