"""The model as lmms-eval sees it, and what it answers."""

from typing import TYPE_CHECKING

from fitprune.lazy import importing

if TYPE_CHECKING:
    from harness.answering.evaluate import evaluate_cell
    from harness.answering.lmms_model import FitPruneLMM
    from harness.answers import Answer, Answers
    from harness.models.chat import chat

__all__ = [
    "Answer",
    "Answers",
    "FitPruneLMM",
    "chat",
    "evaluate_cell",
]

__getattr__ = importing(
    __name__,
    {
        "Answer": "harness.answers",
        "Answers": "harness.answers",
        "FitPruneLMM": "harness.answering.lmms_model",
        "chat": "harness.models.prompting",
        "evaluate_cell": "harness.answering.evaluate",
    },
)
