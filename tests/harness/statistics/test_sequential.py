"""The anytime-valid bound: against a literal version, and its promises in simulation; the random order; the plugin's gate."""

import math

import numpy as np
import pytest

from harness.bench.stretches import joined, stretches
from harness.results.store import Store
from harness.statistics import image_drops
from harness.statistics.betting import BettingBound
from tests.benchmarks.gate_errors.worlds import decided, ends, image_draws, refuted
from tests.support import fake_bench
from tests.support.scores import answers

pytest_plugins = ["pytester", "tests.support.suite_runs"]


def literal_wealth(draws, mean):
    """Against the claim that the mean is `mean` or more, draw by draw."""
    total = 0.0
    for power in range(8):
        wealth = 1.0
        for draw in draws:
            wealth *= 1 + 0.5**power * (mean - draw) / (1 - mean)
        total += wealth
    return total / 8


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_the_literal_one(seed):
    rng = np.random.default_rng(seed)
    draws = rng.choice([-1.0, -0.5, 0.0, 0.0, 0.0, 0.25, 1.0], 120)
    bound = BettingBound()
    for part in np.array_split(draws, 5):
        bound.add(part)
    for mean in np.linspace(-0.9, 0.9, 19):
        assert bound.refutes_at_least(mean) == (literal_wealth(draws, mean) >= 40)
        assert bound.refutes_at_most(mean) == (literal_wealth(-draws, -mean) >= 40)
    low, high = bound.interval()
    assert low < draws.mean() < high
    assert literal_wealth(draws, high) == pytest.approx(40)
    assert literal_wealth(-draws, -low) == pytest.approx(40)


def test_without_draws_nothing_is_refuted():
    assert BettingBound().interval() == (-1, 1)


def test_the_order_does_not_matter():
    draws = np.random.default_rng(0).choice([-1.0, 0.0, 0.5], 50)
    bounds = [BettingBound(), BettingBound()]
    bounds[0].add(draws)
    bounds[1].add(draws[::-1])
    assert bounds[0].interval() == bounds[1].interval()


def test_draws_outside_are_an_error():
    with pytest.raises(ValueError, match="draws lie in"):
        BettingBound().add(np.array([0.0, 1.5]))


def test_the_simulation_is_of_the_bound():
    draws = image_draws(5, 300, 2, 0.2, 0.1, 0.7)
    for row, when in zip(draws, refuted(draws, 0.2), strict=True):
        for count in (50, 100, 200, 300):
            bound = BettingBound()
            bound.add(row[:count])
            if bound.refutes_at_least(0.2):
                assert when <= count
        if np.isfinite(when):
            bound = BettingBound()
            bound.add(row[: int(when)])
            assert bound.refutes_at_least(0.2)


def test_under_continuous_monitoring_the_interval_ever_misses_in_at_most_5_percent():
    """At the margin itself both errors are largest: passing what is not below, failing what is not above. More worlds in
    `gate_errors`.
    """
    passed, failed = decided(image_draws(400, 2000, 5, 0.06, 0.02, 0.5), 0.02)
    assert (np.isfinite(passed) | np.isfinite(failed)).mean() <= 0.05


def test_a_quarter_of_the_questions_is_enough():
    """TextVQA at two points, where the answers to 2 % of its 3 166 images differ."""
    count, margin, differing = 3166, 0.02, 0.02
    looks, size = ends(count, count // 4), count // 4
    of_even = decided(image_draws(150, size, 1, differing / 2, differing / 2), margin, looks)
    of_twice = decided(image_draws(150, size, 1, 2 * margin, 0.0), margin, looks)
    assert np.median(np.minimum(*of_even)) / count <= 0.25
    assert np.median(np.minimum(*of_twice)) / count <= 0.25
    assert np.mean(of_even[1] < of_even[0]) <= 0.05
    assert np.mean(of_twice[0] < of_twice[1]) <= 0.05


@pytest.mark.parametrize(("count", "margin"), [(398, 0.01), (500, 0.01), (130, 0.05)])
def test_where_it_is_not(count, margin):
    """GQA's 398 images and POPE's 500 at one point, the mini suites' 130 at five: more than a quarter is needed even if not
    one answer differs.
    """
    (when,) = refuted(np.zeros((1, 10 * count)), margin)
    assert when > count / 4


def test_stretches_are_whole_images_in_random_order_and_all_of_them():
    names = [f"image{place // 3}" for place in range(3000)]
    parts = stretches(names, 16, seed=0)
    assert sorted(place for part in parts for place in part) == list(range(3000))
    asked = 0
    for part in parts[:-1]:
        assert {names[place] for place in part}.isdisjoint(
            names[place] for other in parts if other is not part for place in other
        )
        assert max(64, asked // 16) <= len(part) < max(64, asked // 16) + 3
        asked += len(part)
    assert parts == stretches(names, 16, seed=0)
    assert parts[0] != stretches(names, 16, seed=1)[0]
    assert np.mean(parts[0]) == pytest.approx(1500, abs=450)  # from all over the data


def test_image_drops_by_hand():
    before = answers([1, 1, 1, 0, math.nan], ["a", "a", "b", "c", "c"])
    after = answers([1, 0, 0, 1, 1], ["a", "a", "b", "c", "c"])
    assert image_drops(before, after).tolist() == [0.5, 1, -1]


def test_joined_answers_are_one_cells():
    first, second = answers([1.0, 0.0, 0.0], ["a", "b", "c"]), answers([1.0], ["d"])
    for part, score in ((first, 100 / 3), (second, 100.0)):
        part.score, part.tokens = score, {"new_tokens": score}
    second.answers[0].doc_id = -1
    whole = joined([first, second])
    assert (whole.prompts, [answer.doc_id for answer in whole.answers]) == (4, [-1, 0, 1, 2])
    assert (whole.score, whole.tokens["new_tokens"]) == (pytest.approx(50), pytest.approx(50))


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(fake_bench, "QUESTIONS", 4000)  # on 2000 images


def asked(run):
    return len(run.log.read_text().splitlines())


def test_a_drop_of_nothing_passes_early_and_is_not_asked_again(run, many):
    arguments = ("--gate", "sequential", "--max-drop", "5", "--pruner", "fitprune", "--reduction", "0.5")
    result = run(*arguments)
    assert result.ret == 0
    (read,), _ = Store(run.folder).read_all()
    assert (read.verdict, read.gate, read.full_n) == ("pass", "sequential", 4000)
    assert 74 * 2 <= read.n <= 1000  # 74 images are what no bound can do without
    assert read.drop_ci95[0] < 0 < read.drop_ci95[1] <= 5
    assert len(Store(run.folder).read_answers(read)) == read.n
    result.stdout.fnmatch_lines(["fitprune: *; asked until a drop is shown to be below or above 5 points; results: *"])
    result.stdout.fnmatch_lines(
        [f"sequential: *fitprune-0.5 on gqa: pass after {read.n} of 4000 questions; anytime-valid 95 % interval *"]
    )
    evaluated = asked(run)
    assert run(*arguments).ret == 0
    assert asked(run) == evaluated


def test_a_large_drop_fails_early_with_the_questions_it_took(run, many, monkeypatch):
    monkeypatch.setenv("FAKE_WORSE", "2000")
    result = run("--gate", "sequential", "--max-drop", "5", "--pruner", "fitprune", "--reduction", "0.5")
    assert result.ret == 1
    (read,), _ = Store(run.folder).read_all()
    assert read.n <= 200
    result.stdout.fnmatch_lines([f"lost * points * on gqa, allowed 5: *, anytime-valid 95 % interval *, n = {read.n} of 4000"])


def test_too_few_questions_are_undecided_and_fail(run):
    result = run("--gate", "sequential", "--max-drop", "5", "--pruner", "fitprune", "--reduction", "0.5")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["undecided: *drops 0.0 points, anytime-valid 95 % interval *, n = 60 of 60: neither*"])


def test_another_margin_is_another_result_and_a_full_run_yet_another(run, many):
    common = ("--pruner", "fitprune", "--reduction", "0.5")
    for more in (("--gate", "sequential", "--max-drop", "5"), ("--gate", "sequential", "--max-drop", "10"), ()):
        run(*common, *more)
    results = Store(run.folder).read_all().results
    assert [read.full_n for read in results] == [4000, 4000, None]
    assert results[1].n < results[0].n < results[2].n == 4000


def test_pruners_share_the_dense_answers_of_a_stretch(run, many):
    run("--gate", "sequential", "--max-drop", "5", "--pruner", "fitprune", "--reduction", "0.3,0.5")
    lines = [line.rsplit(" ", 1)[0] for line in run.log.read_text().splitlines()]
    assert 2 * lines.count("dense gqa") == len(lines) - lines.count("dense gqa")


def test_a_metric_that_is_no_mean_is_asked_in_full_and_says_so(run, monkeypatch):
    monkeypatch.setattr(
        fake_bench.FakeConditions,
        "__call__",
        lambda self, suite, dtype: {
            "metric": "mme_perception_score",
            "statistic": "pairs",
            "task_code": "",
            "data_digest": "digest",
            "generation": {},
        },
    )
    plain = fake_bench.FakeEvaluation.evaluate

    def evaluate(self, *arguments):
        found = plain(self, *arguments)
        found.answers.metric, found.answers.statistic = "mme_perception_score", "pairs"
        return found

    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", evaluate)
    result = run("--gate", "sequential", "--max-drop", "5", "--pruner", "fitprune", "--reduction", "0.5", suites=("mme",))
    assert result.ret == 0
    (read,), _ = Store(run.folder).read_all()
    assert (read.gate, read.full_n, read.n) == ("significant", None, 60)
    result.stdout.fnmatch_lines(
        ["note: mme: its metric is no mean that is known before, so all were asked, and the gate is `significant`"]
    )


def test_dense_is_no_cell_of_its_own_unless_asked_for(run):
    listed = run("--gate", "sequential", "--collect-only", "-q", "--reduction", "0.5").outlines
    assert [line.rpartition("[")[2] for line in listed if "::" in line] == ["m-fitprune-0.5]", "m-fastv-0.5]", "m-random-0.5]"]


@pytest.mark.parametrize("option", ["--save", "--compare"])
def test_a_run_that_stops_early_is_not_compared(run, option):
    result = run("--gate", "sequential", option, "main")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: --gate sequential stops where it is decided; --save and --compare need all answers of a run"]
    )
