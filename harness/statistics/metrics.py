"""What a suite's metric is made of: the values that it averages, or the counts that it is a function of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fitprune.errors import FitPruneError
from harness.answers import F1, MEAN, PAIRS, Answer, Answers


@dataclass(frozen=True)
class Units:
    """What a suite's metric averages: one value per unit, the image it hangs on, and the stratum whose mean it enters.

    For most suites a unit is a question and there is one stratum; for MME a unit is the pair of questions about an
    image, and the strata are the categories, which count alike however many pairs they hold.
    """

    values: np.ndarray
    clusters: np.ndarray
    strata: np.ndarray
    questions: int


@dataclass(frozen=True)
class Sums:
    """A metric that is a function of sums over questions: `parts` (n, k), the image of each, and the metric of totals
    (…, k) → (…), which must not change when all totals are scaled.
    """

    parts: np.ndarray
    clusters: np.ndarray
    metric: Callable[[np.ndarray], np.ndarray]


def scores_of(answers: Answers) -> np.ndarray:
    """The answers' scores, (n,); NaN for what is not scored. Raises FitPruneError for one that is no share."""
    scores = np.array([answer.score for answer in answers.answers], dtype=float)
    outside = np.flatnonzero(~np.isnan(scores) & ~((scores >= 0) & (scores <= 1)))
    if len(outside):
        first = answers.answers[outside[0]]
        raise FitPruneError(
            f"{answers.suite}: question {first.doc_id} scores {first.score:g}, as {len(outside)} of {len(scores)} are outside "
            "0-1: no interval can be made of such scores; divide them by the metric's largest value"
        )
    return scores


def question_units(answers: Sequence[Answer], scores: np.ndarray) -> Units:
    """One unit per scored question: the metrics that are a mean over questions (exact match, POPE accuracy, ANLS)."""
    scored = np.isfinite(scores)
    questions = int(scored.sum())
    return Units(scores[scored], _images(answers, scored), np.zeros(questions, dtype=int), questions)


def pair_units(answers: Sequence[Answer], scores: np.ndarray) -> Units:
    """One unit per pair of questions about an image of one group: the mean of acc and acc+ on it.

    MME (Fu et al. 2023, arXiv 2306.13394): accuracy over the questions plus accuracy+ (both questions
    of an image right), summed over categories. With 200 points a category this is the mean over categories of (acc
    + acc+) / 2, which is what is returned here as a share. A pair with an unscored question, or without its second
    question, takes no part.
    """
    pairs: dict[tuple[str, str], list[int]] = {}
    for position in sorted(range(len(answers)), key=lambda i: answers[i].doc_id):
        answer = answers[position]
        pairs.setdefault((answer.group, answer.image), []).append(position)
    values, images, categories = [], [], []
    for (category, image), positions in pairs.items():
        for first, second in zip(positions[::2], positions[1::2], strict=False):
            pair = scores[[first, second]]
            if np.isfinite(pair).all():
                values.append((pair.mean() + (pair == 1).all()) / 2)
                images.append(image)
                categories.append(category)
    return Units(np.array(values, dtype=float), np.array(images, dtype=str), np.array(categories, dtype=str), 2 * len(values))


def yes_f1_sums(answers: Sequence[Answer], scores: np.ndarray) -> Sums:
    """F1 of "yes", POPE's (Li et al. 2023, arXiv 2305.10355), of true and false positives and false negatives, as
    lmms-eval counts them: an answer that is neither yes nor no is none of the three.
    """
    scored = np.isfinite(scores)
    said = np.array([answer.answer.lower().strip() for answer in answers], dtype=object)[scored]
    truth = np.array([answer.target.lower().strip() for answer in answers], dtype=object)[scored]
    kinds = [("yes", "yes"), ("yes", "no"), ("no", "yes")]
    parts = np.stack([(said == answer) & (truth == target) for answer, target in kinds], 1).astype(float)
    return Sums(parts, _images(answers, scored), f1)


def f1(totals: np.ndarray) -> np.ndarray:
    """F1 of totals (…, 3) of true positives, false positives, false negatives; 0 where there is no true positive."""
    hits, wrong = 2 * totals[..., 0], totals[..., 1] + totals[..., 2]
    return np.divide(hits, hits + wrong, out=np.zeros_like(hits), where=hits > 0)


def _images(answers: Sequence[Answer], scored: np.ndarray) -> np.ndarray:
    return np.array([answer.image for answer in answers], dtype=object)[scored].astype(str)


def taking_part(answers: Sequence[Answer], scores: np.ndarray) -> np.ndarray:
    """Which answers (n,) the metric asks for: not those of groups without any score beside others that have some, such as the
    cognition categories beside MME's perception score.
    """
    groups = np.array([answer.group for answer in answers], dtype=object).astype(str)
    scored = np.isin(groups, groups[np.isfinite(scores)])
    return scored if scored.any() else np.ones(len(groups), dtype=bool)


# By statistic: what a mean is taken of, and what a metric that is none is a function of.
UNITS: dict[str, Callable[[Sequence[Answer], np.ndarray], Units]] = {MEAN: question_units, PAIRS: pair_units}
SUMS: dict[str, Callable[[Sequence[Answer], np.ndarray], Sums]] = {F1: yes_f1_sums}
