"""Which answers may be compared: those to the same questions, put and scored in the same way."""

import dataclasses
from typing import Any

from fitprune.errors import FitPruneError
from harness.answers import Answers

_SAME = ("question", "image", "target", "group")


def paired(before: Answers, after: Answers) -> Answers:
    """`after`, its answers in the order of `before`.

    Raises FitPruneError, which names what differs: the suite, the metric, the data, how answers were generated and in which
    precision, or a question, its image or its target. What an older file does not say is taken to be the same.
    """
    later = {answer.doc_id: answer for answer in after.answers}
    if before.suite != after.suite or {answer.doc_id for answer in before.answers} != later.keys():
        raise FitPruneError(
            f"cannot pair {len(before.answers)} answers on {before.suite} "
            f"with {len(after.answers)} on {after.suite}: they are not the same questions"
        )
    one, other = _circumstances(before), _circumstances(after)
    for name in one:
        if name in other and one[name] != other[name]:
            raise FitPruneError(f"cannot pair answers on {before.suite}: {name} is {one[name]} and {other[name]}")
    matched = [later[answer.doc_id] for answer in before.answers]
    for old, new in zip(before.answers, matched, strict=True):
        for name in _SAME:
            if getattr(old, name) != getattr(new, name):
                raise FitPruneError(
                    f"cannot pair answers on {before.suite}: question {old.doc_id} has the {name} "
                    f"{getattr(old, name)!r} and {getattr(new, name)!r}"
                )
    return dataclasses.replace(after, answers=matched)


def _circumstances(answers: Answers) -> dict[str, Any]:
    """What all answers share, as far as it is known; batches change no pair."""
    known = {"the metric": answers.metric, "the data's digest": answers.data_digest}
    known |= {f"generation's {name}": value for name, value in answers.generation.items() if name != "batch_size"}
    return {name: value for name, value in known.items() if value != ""}
