"""What can be said about an accuracy, and about the accuracy that a change cost, from a sample of questions.

One function per statistic, each with its source. What cannot be said (fewer than two clusters, a question without a
score) is NaN, never 0: an unscored question is left out of n, and an interval that does not exist stays NaN until
the table, where it is shown as such.

Questions about one image succeed or fail together, so the image, not the question, is the independent draw. Every
interval here is therefore clustered by image.

Values are shares (0-1) while they are arrays, and points (0-100) in everything that is returned about answers.
"""

from harness.statistics.averages import average_half_width, correlations
from harness.statistics.drops import Drop, image_drops, no_drop, paired_drop, score_interval
from harness.statistics.influence import Influence
from harness.statistics.resampled import half_samples
from harness.statistics.verdicts import GATES, Verdict, certified, questions_needed

__all__ = [
    "GATES",
    "Drop",
    "Influence",
    "Verdict",
    "average_half_width",
    "certified",
    "correlations",
    "half_samples",
    "image_drops",
    "no_drop",
    "paired_drop",
    "questions_needed",
    "score_interval",
]
