"""Families that are asked for and cannot be run: what they are called, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Absent:
    """A family that cannot be run.

    Attributes:
        name: what people type; with a size behind it, too.
        model_type: as a checkpoint's configuration names it.
        reason: the rest of a sentence that begins with the name.
    """

    name: str
    model_type: str
    reason: str


ABSENT = (
    Absent(
        "llava-onevision-1.5",
        "llavaonevision1_5",
        "is not in transformers: its checkpoints bring code of their own, which is never run; take llava-onevision-7b or "
        "qwen3-vl-8b",
    ),
)


def reason_against(asked: str) -> str | None:
    """Why the family that a name or a configuration's `model_type` belongs to cannot be run; None where nothing is known
    against it.
    """
    plain = asked.lower().rpartition("/")[2]
    return next((each.reason for each in ABSENT if f"{plain}-".startswith(f"{each.name}-") or plain == each.model_type), None)
