"""Families that are asked for and cannot be run: what they are called, and why."""

ABSENT = {
    ("llava-onevision-1.5", "llavaonevision1_5"): (
        "is not in transformers: its checkpoints bring code of their own, which is never run; take llava-onevision-7b or "
        "qwen3-vl-8b"
    ),
}
"""What people type, with a size behind it, too, and a checkpoint's `model_type` → the rest of a sentence that begins so."""


def reason_against(asked: str) -> str | None:
    """Why the family that a name or a configuration's `model_type` belongs to cannot be run; None where nothing is known
    against it.
    """
    plain = asked.lower().rpartition("/")[2]
    found = (reason for (name, kind), reason in ABSENT.items() if f"{plain}-".startswith(f"{name}-") or plain == kind)
    return next(found, None)
