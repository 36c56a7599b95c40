"""Averages over suites that ask about the same images: an image is one draw, in however many suites it is."""

import dataclasses
import math

import numpy as np
import pytest

from harness.results.store import Store
from harness.results.table import tables_of
from harness.statistics import average_half_width, correlations, paired_drop
from harness.statistics.averages import sharing, unproven
from harness.statistics.drops import bounded_mean
from harness.statistics.estimates import stratified_mean
from harness.statistics.metrics import Units
from reports.table.leaderboard import read_leaderboard
from tests.benchmarks.gate_errors import worlds
from tests.benchmarks.gate_errors.promises import at_the_margin
from tests.support.boards import answers_with, put
from tests.support.results import result

RNG = np.random.default_rng(0)
DIGEST = "{:016x}"
EXHAUSTIVE = pytest.mark.exhaustive


def drop_on(pictures, values):
    """The mean of one question a picture."""
    names = np.array([DIGEST.format(picture) for picture in pictures])
    return bounded_mean(Units(np.array(values, dtype=float), names, np.zeros(len(names), dtype=int), len(names)), -1.0)


def lossy(count, share=0.3):
    return (RNG.random(count) < share).astype(float)


def half_of(drops, data="hub"):
    halves = [(drop.high - drop.low) / 2 for drop in drops.values()]
    return average_half_width(halves, correlations({suite: drop.influence for suite, drop in drops.items()}, data))


def test_the_error_of_an_average_is_that_of_the_images_sums():
    """Three suites of which two share images, and not in the same order, against one stratified mean over all of them."""
    pictures = {"pope": np.arange(40), "vqav2": np.arange(60)[::-1], "gqa": np.arange(100, 150)}
    hit = lossy(60)
    values = {"pope": hit[:40] * (RNG.random(40) < 0.8), "vqav2": hit[::-1], "gqa": lossy(50)}
    made = {suite: drop_on(pictures[suite], values[suite]) for suite in pictures}
    none = {suite: dataclasses.replace(drop.influence, unseen=0.0) for suite, drop in made.items()}
    expected = stratified_mean(
        np.concatenate(list(values.values())),
        np.concatenate(list(pictures.values())),
        np.repeat(np.arange(3), [40, 60, 50]),
    )
    correlation = correlations(none, "hub")
    errors = [drop.standard_error for drop in made.values()]
    assert average_half_width(errors, correlation) == pytest.approx(expected.standard_error)
    assert 0.5 < correlation[0, 1] < 0.95
    assert (correlation[0, 2], correlation[1, 2]) == (0, 0)
    assert sharing(none) == ["pope", "vqav2"]


def test_a_suite_asked_twice_says_no_more_than_once():
    values = lossy(50)
    once = drop_on(range(50), values)
    assert half_of({"pope": once, "vqav2": once}) == pytest.approx((once.high - once.low) / 2)


def test_on_other_images_errors_are_independent():
    drops = {"gqa": drop_on(range(40), lossy(40)), "textvqa": drop_on(range(40, 90), lossy(50))}
    halves = [(drop.high - drop.low) / 2 for drop in drops.values()]
    assert half_of(drops) == pytest.approx(math.hypot(*halves) / 2)


@pytest.mark.parametrize("known", [True, False], ids=["no image in common", "no digests"])
def test_on_one_collection_half_widths_add_up_where_nothing_shows_which_images_are_the_same(known):
    """Of mini data it is known that suites share none."""
    drops = {suite: drop_on(range(40 * at, 40 * at + 40), lossy(40)) for at, suite in enumerate(("pope", "vqav2", "gqa"))}
    if not known:
        drops = {suite: dataclasses.replace(drop, influence=None) for suite, drop in drops.items()}
    pope, vqav2, gqa = ((drop.high - drop.low) / 2 for drop in drops.values())
    assert half_of(drops) == pytest.approx(math.hypot(pope + vqav2, gqa) / 3)
    assert half_of(drops, "mini") == pytest.approx(math.hypot(pope, vqav2, gqa) / 3)
    influences = {suite: drop.influence for suite, drop in drops.items()}
    assert unproven(influences, "hub") == ["pope", "vqav2"]
    assert unproven(influences, "mini") == sharing(influences) == []


def test_suites_linked_through_a_third_have_the_same_copies():
    """POPE and MME share no image, both share some with VQAv2: its copies are theirs, so theirs are different images."""
    drops = {
        "pope": drop_on(range(30), lossy(30)),
        "vqav2": drop_on(range(20, 60), lossy(40)),
        "mme": drop_on(range(50, 90), lossy(40)),
    }
    influences = {suite: drop.influence for suite, drop in drops.items()}
    assert unproven(influences, "hub") == []
    assert abs(correlations(influences, "hub")[0, 2]) < 0.3


def test_where_no_image_differs_the_one_that_was_not_drawn_may_be_lost_in_all_suites():
    drops = {suite: drop_on(range(50), np.zeros(50)) for suite in ("pope", "vqav2")}
    single = (drops["pope"].high - drops["pope"].low) / 2
    assert half_of(drops) == pytest.approx(single)


def test_an_average_of_an_interval_that_does_not_exist_is_none():
    assert math.isnan(average_half_width([1.0, math.nan], np.eye(2)))


def test_names_that_are_no_digests_are_no_images():
    named, known = (answers_with([1, 0, 1, 1, 0, 1], image=image) for image in ("image{}", DIGEST))
    assert paired_drop(named, named).influence is None
    assert paired_drop(known, known).influence.pictures.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("suites", "losses", "same"),
    [
        pytest.param(
            [(0, 20, "1"), (0, 20, "2"), (0, 20, "1-6")], (0.2, 0.0), 1.0, id="the same", marks=pytest.mark.exhaustive
        ),
        pytest.param([(0, 30, "2"), (0, 120, "1"), (20, 50, "1")], (0.1, 0.1), 0.5, id="in part the same"),
        pytest.param(
            [(0, 40, "2"), (0, 40, "1"), (0, 40, "1")], (0.02, 0.0), 1.0, id="few losses", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_at_the_margin_an_average_errs_in_at_most_2_5_percent(suites, losses, same):
    """And it is no wider than the sum of half-widths."""
    kinds, truth = worlds.ternary(*losses)
    found, bound = (worlds.averaged(suites, kinds, 150, same, known=known) for known in (True, False))
    for promise in at_the_margin("", found, 100 * truth):
        assert promise.kept, f"{promise.what}: {promise.measured:.3f}, promised {promise.most:.3f}"
    ratio = np.mean([drop.half_width for drop in found]) / np.mean([drop.half_width for drop in bound])
    assert ratio < 0.85 if same < 1 else 0.9 < ratio <= 1 + 1e-9


def row_of(board, pruner):
    """A method's row, and what it is compared by."""
    return next(
        (row, evidence) for row, evidence in zip(board.table.rows, board.evidence, strict=True) if row.name.startswith(pruner)
    )


@pytest.mark.parametrize(("image", "word"), [(DIGEST, "ask about the same images"), ("image{}", "half-widths are added up")])
def test_a_folders_average_takes_each_image_once_and_says_so(tmp_path, image, word):
    """The row's own interval, and that of its edge over random pruning, which loses nothing here."""
    store, hit = Store(tmp_path), lossy(60)
    for suite in ("pope", "vqav2"):
        put(store, "fastv", 1 - hit, suite, image=image, data="hub")
        put(store, "random", np.ones(60), suite, image=image, data="hub")
    (board,) = read_leaderboard(tmp_path).boards
    assert any("VQAv2, POPE" in note and word in note for note in board.notes)
    row, evidence = row_of(board, "fastv")
    figures = [row.figure(suite) for suite in ("pope", "vqav2")]
    # The same answers twice are one suite's, and no correlation is above their own.
    assert row.average(["pope", "vqav2"]).drop_half_width == pytest.approx(figures[0].drop_half_width)
    edge = evidence.average("random", board.table)
    assert (edge.high - edge.low) / 2 == pytest.approx(figures[0].drop_half_width)


def test_a_folders_average_of_scores_and_drops_has_its_own_correlation_each(tmp_path):
    """Scores of one suite go with those of the other, its drops do not, nor its edges over random pruning."""
    store, hard = Store(tmp_path), lossy(80, 0.5)
    for suite, kept in (("pope", np.arange(80) % 4 > 0), ("vqav2", np.arange(80) % 4 != 1)):
        own, dense = (answers_with(scores, suite, DIGEST) for scores in (hard * kept, hard))
        store.write(result(suite=suite, score=own.score, dense_score=dense.score, data="hub", n=80), own, dense)
        put(store, "random", hard, suite, image=DIGEST, data="hub")
    (board,) = read_leaderboard(tmp_path).boards
    row, evidence = row_of(board, "fastv")
    together = row.together(["pope", "vqav2"])
    assert together.scores[0, 1] > 0.4 > together.drops[0, 1]
    one, other = (row.figure(suite).half_width for suite in ("pope", "vqav2"))
    expected = math.sqrt(one**2 + other**2 + 2 * together.scores[0, 1] * one * other) / 2
    assert row.average(["pope", "vqav2"]).half_width == pytest.approx(expected)
    edges = evidence.edges["random"]
    average = evidence.average("random", board.table)
    correlation = correlations({suite: edge.influence for suite, edge in edges.items()}, "hub")[0, 1]
    assert correlation == pytest.approx(together.drops[0, 1], abs=0.1)  # random pruning lost nothing
    below = [edge.points - edge.low for edge in edges.values()]
    assert average.points - average.low == pytest.approx(math.sqrt(np.dot(below, below) + 2 * correlation * np.prod(below)) / 2)


def test_without_a_folder_half_widths_add_up():
    (table,) = tables_of([result(suite=suite, data="hub") for suite in ("pope", "vqav2")])
    assert table.rows[1].average(table.averaged).drop_half_width == pytest.approx(2)
