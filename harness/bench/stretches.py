"""A suite's questions in random order, image by image, in stretches after each of which a run may stop."""

import hashlib
from collections.abc import Hashable, Sequence

from harness.answers import Answers

FIRST_BATCHES = 4  # of the first stretch
GROWTH = 16  # a later one adds a sixteenth of what was asked: so much, at most, is asked beyond what would have decided


def stretches(images: Sequence[Hashable], batch_size: int, seed: int) -> list[list[int]]:
    """The places of all questions: images in random order, decided by hashes of their names and the seed, whole images in
    one stretch, each stretch ascending.

    images: per question, what names its image.
    """
    places: dict[Hashable, list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image, []).append(place)
    order = sorted(places, key=lambda image: hashlib.sha256(repr((seed, image)).encode()).digest())
    made: list[list[int]] = []
    current: list[int] = []
    asked = 0
    for image in order:
        current += places[image]
        if len(current) >= max(FIRST_BATCHES * batch_size, asked // GROWTH):
            made.append(sorted(current))
            asked += len(current)
            current = []
    return [*made, sorted(current)] if current else made


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers of several stretches as those of one cell. For metrics that are a mean over questions."""
    first, prompts = parts[0], sum(part.prompts for part in parts)

    def mean(values: Sequence[float]) -> float:
        return sum(value * part.prompts for value, part in zip(values, parts, strict=True)) / prompts

    return Answers(
        suite=first.suite,
        metric=first.metric,
        score=mean([part.score for part in parts]),
        answers=sorted((answer for part in parts for answer in part.answers), key=lambda answer: answer.doc_id),
        prompts=prompts,
        seconds=sum(part.seconds for part in parts),
        data_digest=first.data_digest,
        generation=first.generation,
        tokens={name: mean([part.tokens[name] for part in parts]) for name in first.tokens},
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
    )
