"""What `fitprune tune` leaves in a results folder for its page."""

from typing import Any, Literal

from pydantic import BaseModel, FiniteFloat, StrictBool, StrictInt

from harness.results.validation import checked

FORMAT, VERSION = "fitprune-tuned", 1
FOLDER = "tuned"


class _Candidate(BaseModel):
    """See `harness.tuning.report.Frontier`."""

    name: str
    saves: FiniteFloat
    most: FiniteFloat
    asked: StrictInt
    certified: StrictBool


class _Tuned(BaseModel):
    """What the page shows of a search; see `harness.tuning.report.Tuned`."""

    format: Literal["fitprune-tuned"]
    version: Literal[1]
    model: str
    headline: str
    goal: str
    command: str
    frontier: list[_Candidate]


def check_tuned(record: Any) -> dict[str, Any]:
    """What the page shows of a parsed record. Raises FitPruneError, in one line, on anything that it could not show."""
    return checked(_Tuned.model_validate, record).model_dump()
