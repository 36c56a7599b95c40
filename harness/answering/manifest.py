"""What makes `python -m lmms_eval --model fitprune` work: the target of an entry point in group `lmms_eval.models`.

A module of its own, because lmms-eval loads it while it is itself half imported.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> "ModelManifest":
    """The model `fitprune` for lmms-eval's registry."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="fitprune", simple_class_path="harness.answering.lmms_model.FitPruneLMM")
