"""The model as lmms-eval sees it, and what it answers."""

from typing import TYPE_CHECKING

from fitprune.lazy import importing

if TYPE_CHECKING:
    from harness.answering.lmms_model import FitPruneLMM
    from harness.answers import Answer, Answers
    from harness.models.chat import chat

__all__ = ["Answer", "Answers", "FitPruneLMM", "chat"]

__getattr__ = importing(
    __name__,
    dict.fromkeys(("Answer", "Answers"), "harness.answers")
    | {"FitPruneLMM": "harness.answering.lmms_model", "chat": "harness.models.chat"},
)
