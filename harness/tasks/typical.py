"""`typical_tokens`: how many visual tokens a prompt has where the image decides, what a method's parameter is solved for."""

from typing import TYPE_CHECKING

from fitprune.models.sizes import visual_tokens
from harness.cost.flops import prompt_tokens
from harness.tasks.calibration import calibration_batches

if TYPE_CHECKING:
    from harness.models.loading import LoadedModel, ModelOutline

SAMPLES = 32


def typical_tokens(loaded: "LoadedModel | ModelOutline", data: str) -> int | None:
    """The mean over calibration prompts, newlines counted; None where the configuration itself fixes the number.

    A share of tokens that saves a given share of FLOPs hardly depends on their number, so the mean serves all prompts.

    Raises:
        FitPruneError: calibration samples that are missing or damaged.
    """
    config = loaded.config
    if visual_tokens(config) is not None:
        return None
    batches = calibration_batches(loaded, data, samples=SAMPLES)
    return round(sum(int(prompt_tokens(config, batch)[1].sum()) for batch in batches) / SAMPLES)
