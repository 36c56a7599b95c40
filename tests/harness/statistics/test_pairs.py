"""What may be paired, by name; and scores that no interval can be made of."""

import dataclasses
import re

import pytest

from fitprune.errors import FitPruneError
from harness.statistics import paired_drop, score_interval
from tests.support.scores import answers

IMAGES = list("abcdefgh")


def changed(**changes):
    made = answers([1, 0] * 4, IMAGES)
    made.answers[3] = dataclasses.replace(made.answers[3], **changes)
    return made


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(question="what?"), "question 3 has the question 'q' and 'what?'"),
        (changed(image="z"), "question 3 has the image 'd' and 'z'"),
        (changed(target="no"), "question 3 has the target 't' and 'no'"),
        (changed(group="count"), "question 3 has the group '' and 'count'"),
        (changed(doc_id=9), "they are not the same questions"),
        (dataclasses.replace(changed(), suite="pope"), "they are not the same questions"),
        (dataclasses.replace(changed(), metric="anls"), "the metric is exact_match and anls"),
        (dataclasses.replace(changed(), data_digest="other"), "the data's digest is digest and other"),
        (dataclasses.replace(changed(), generation={"dtype": "bfloat16"}), "generation's dtype is float32 and bfloat16"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(other, said):
    here = dataclasses.replace(answers([1, 0] * 4, IMAGES), generation={"dtype": "float32", "batch_size": 4})
    with pytest.raises(FitPruneError, match=rf"^cannot pair .*{re.escape(said)}$"):
        paired_drop(here, other)


def test_other_batches_and_what_an_older_file_does_not_say_change_no_pair():
    here = dataclasses.replace(answers([1, 0] * 4, IMAGES), generation={"dtype": "float32", "batch_size": 4})
    there = dataclasses.replace(here, generation={"dtype": "float32", "batch_size": 16})
    older = dataclasses.replace(here, generation={}, data_digest="")
    assert paired_drop(here, there).drop == paired_drop(here, older).drop == 0


@pytest.mark.parametrize("score", [10.0, -0.1, 1.0001, float("inf")])
def test_scores_outside_0_to_1_are_refused(score):
    bad = answers([1.0, 0.0, score], list("abc"))
    said = rf"^gqa: question 2 scores {re.escape(f'{score:g}')}, as 1 of 3 are outside 0-1"
    with pytest.raises(FitPruneError, match=said):
        score_interval(bad)
    with pytest.raises(FitPruneError, match=said):
        paired_drop(answers([1.0] * 3, list("abc")), bad)
