"""`typical_tokens`: how many visual tokens a prompt has where the image decides, what a method's parameter is solved for."""

from typing import TYPE_CHECKING

from fitprune.models.sizes import visual_tokens
from harness.cost.flops import prompt_tokens
from harness.tasks.calibration import VIDEO_BATCH, Batches, calibration_batches

if TYPE_CHECKING:
    from pathlib import Path

    from harness.models.loading import LoadedModel, ModelOutline

SAMPLES = 32


def typical_tokens(loaded: "LoadedModel | ModelOutline", data: str) -> int | None:
    """The mean over calibration prompts, newlines counted; None where the configuration itself fixes the number.

    A share of tokens that saves a given share of FLOPs hardly depends on their number, so the mean serves all prompts.

    Raises:
        FitPruneError: calibration samples that are missing or damaged.
    """
    if visual_tokens(loaded.config) is not None:
        return None
    return _mean(loaded, calibration_batches(loaded, data, samples=SAMPLES), SAMPLES)


def video_tokens(loaded: "LoadedModel | ModelOutline", prompts: "list[tuple[Path, str]]", frames: int) -> int:
    """The mean over questions about these videos, shown by so many frames.

    Raises:
        FitPruneError: a video that cannot be read.
    """
    return _mean(loaded, Batches(loaded, "", list(prompts), VIDEO_BATCH, frames), len(prompts))


def _mean(loaded: "LoadedModel | ModelOutline", batches: Batches, samples: int) -> int:
    return round(sum(int(prompt_tokens(loaded.config, batch)[1].sum()) for batch in batches) / samples)
