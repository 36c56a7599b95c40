"""`Answer` and `Answers`: what a model said to a suite's questions, how each answer scored, and both as records on disk.

A record is one line of a cell's answers file: an answer's fields, and beside them, for a pruned cell, what the dense model
answered (`dense_answer`, `dense_score`). A score that does not exist is NaN here and None in a record.
"""

import dataclasses
import math
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# How a suite's score is made of its questions' scores: as their mean; of pairs of questions about an image, group by group, as
# MME does; as the F1 of "yes"; or by lmms-eval's own aggregation, of which nothing is known but what it gives of parts.
MEAN, PAIRS, F1, RESAMPLED = "mean", "pairs", "f1", "resampled"
_BEFORE = {"mme_perception_score": PAIRS, "pope_f1_score": F1}  # in results of versions that wrote no statistic; else the mean


@dataclass(slots=True)
class Answer:
    """One answered question.

    Attributes:
        doc_id: row of the question in the data, whatever the limit.
        image: hash of its pixels; equal for questions about one image.
        score: 0-1; NaN where the metric does not score this question.
        group: the category, where questions about an image are scored together; else empty.
        new_tokens, margin, entropy: how long the answer is and how certain its first token, as a `Record` of answering has it;
            None where nobody wrote it down.
    """

    doc_id: int
    image: str
    question: str
    answer: str
    target: str
    score: float
    group: str = ""
    new_tokens: int | None = None
    margin: float | None = field(default=None, compare=False)
    entropy: float | None = field(default=None, compare=False)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], *, dense: bool = False) -> "Answer":
        """The answer in a record: the cell's own, or the dense model's, which for a dense cell is its own.

        Raises KeyError, TypeError or ValueError on what is no such record.
        """
        answer, score = record["answer"], record["score"]
        certainty = [record.get(name) for name in ("new_tokens", "margin", "entropy")]
        if dense and "dense_answer" in record:
            answer, score, certainty = record["dense_answer"], record["dense_score"], [None] * 3
        return cls(
            record["doc_id"],
            _once(record["image"]),
            record["question"],
            _once(answer),
            _once(record["target"]),
            math.nan if score is None else float(score),
            _once(record.get("group", "")),
            *certainty,
        )


def _once(text: Any) -> Any:
    """The text, in memory once however many questions have it."""
    return sys.intern(text) if type(text) is str else text


ANSWER = tuple(part.name for part in dataclasses.fields(Answer))


@dataclass
class Answers:
    """A suite's answers.

    Attributes:
        score: points of 0-100, made of lmms-eval's own aggregate.
        answers: by doc_id.
        prompts: questions asked.
        seconds: wall clock, data loading and scoring included; of batches that an earlier run answered, what they took.
        data_digest: of the data's content.
        generation: settings, known before anything is asked.
        tokens: means per question: `prompt_tokens`, `visual_tokens`, `new_tokens`.
        notes: what a reader must know, e.g. that there are fewer questions than asked.
        statistic: how the answers' scores make the score.
        replicates: of `RESAMPLED`, the score in points of each of `half_samples`.
    """

    suite: str
    metric: str
    score: float
    answers: list[Answer]
    prompts: int
    seconds: float
    data_digest: str
    generation: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    statistic: str = ""
    replicates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.statistic = self.statistic or _BEFORE.get(self.metric, MEAN)

    def narrowed(self, doc_ids: Collection[int]) -> "Answers":
        """The answers to these questions alone. For metrics that are a mean over questions: the score is their mean."""
        answers = [answer for answer in self.answers if answer.doc_id in doc_ids]
        scores = [answer.score for answer in answers if not math.isnan(answer.score)]
        score = 100 * sum(scores) / len(scores) if scores else math.nan
        return dataclasses.replace(self, score=score, answers=answers, prompts=len(answers))

    def to_records(self, dense: "Answers | None" = None) -> Iterator[dict[str, Any]]:
        """One record a question, with what the dense model answered to it where `dense` is given."""
        before = {} if dense is None else {answer.doc_id: answer for answer in dense.answers}
        for answer in self.answers:
            record = {name: value for name in ANSWER if (value := getattr(answer, name)) is not None}
            if (other := before.get(answer.doc_id)) is not None:
                record |= {"dense_answer": other.answer, "dense_score": other.score}
            yield record
