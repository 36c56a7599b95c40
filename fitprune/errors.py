"""Errors for people: one line that says what is wrong, with the value, and what to do."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path


class FitPruneError(ValueError):
    """Base of every error a user can cause. Its message is one line, meant to be shown without a stack trace."""


class UnsupportedModel(FitPruneError):
    """The model's structure, or the way it is called, is one that cannot be pruned correctly."""


class SeesNoVideos(UnsupportedModel):
    """A model that is shown images alone, where videos are asked about."""


class BudgetError(FitPruneError):
    """A FLOPs budget that a method cannot reach on this model; the message says what it can reach."""


class RecipeError(FitPruneError):
    """A recipe that is malformed, or that was made for another model."""


class Interrupted(KeyboardInterrupt):
    """A fit was interrupted; says what is kept, and how to go on.

    Attributes:
        samples: calibration samples whose statistics are kept; folder: where.
    """

    def __init__(self, samples: int, folder: Path) -> None:
        super().__init__(
            f"interrupted; the statistics of {samples} samples are kept: the same call with keep='{folder}' goes on from there."
        )
        self.samples, self.folder = samples, folder


def one_line(error: BaseException) -> str:
    """An error's message in one line, whatever was typed or read: of a word of more than 200 characters the first 80."""
    return re.sub(r"\S{201,}", lambda word: f"{word[0][:80]}…", " ".join(str(error).split()))


def unknown_name(kind: str, name: str, known: Iterable[str]) -> FitPruneError:
    """The error for a name that is not registered, with the nearest names (or all of them when none is near)."""
    known = sorted(known)
    small = {one.lower(): one for one in known}
    near = [small[one] for one in difflib.get_close_matches(name.lower(), small, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}."
    return FitPruneError(f"unknown {kind} '{name}'; {hint}")
