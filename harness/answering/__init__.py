"""The model as lmms-eval sees it, and what it answers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.answering.evaluate import evaluate_cell
    from harness.answering.lmms_model import FitPruneLMM
    from harness.answers import Answer, Answers
    from harness.models.prompting import chat

__all__ = [
    "Answer",
    "Answers",
    "FitPruneLMM",
    "chat",
    "evaluate_cell",
]

# Imported when asked for: a command line that only checks its input should not wait for torch.
_HOMES = {
    "Answer": "harness.answers",
    "Answers": "harness.answers",
    "FitPruneLMM": "harness.answering.lmms_model",
    "chat": "harness.models.prompting",
    "evaluate_cell": "harness.answering.evaluate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
