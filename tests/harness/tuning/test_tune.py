"""A whole search with made-up answers: what it finds, writes, says, keeps, and what it refuses."""

import json
from types import SimpleNamespace

import pytest

import harness.tuning.run
from fitprune import FitPrune, FitPruneError, Recipe, RecipeError
from fitprune.cli.show import describe
from fitprune.recipes.certificate import Certificate, CertifiedSuite
from harness.__main__ import main
from harness.answers import F1, MEAN
from harness.bench.resolved import Resolver
from harness.cells import Cell, CellSettings
from harness.gate.thresholds import Thresholds
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.statistics import Drop
from harness.tuning.asked import Asked, require_mean
from harness.tuning.asking import features_of
from harness.tuning.file import check_tuned
from harness.tuning.run import plan_lines, searched
from tests.support import fake_bench
from tests.support.scores import answers

pytest_plugins = ["pytester", "tests.support.suite_runs"]


class Recipes(fake_bench.FakePruners):
    def of(self, cell, facts):
        super().of(cell, facts)
        return (
            FitPrune(Recipe([round(100 * (cell.reduction or 0)), 0], 100))
            if cell.pruner == "fitprune"
            else super().of(cell, facts)
        )


class Bench(fake_bench.FakeBench):
    """As the plugin's tests have it, but with recipes."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.resolver = Resolver(self.settings, self.shelf, Recipes(), fake_bench.FakeConditions())


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Makes a search over 600 questions on 300 images; `lost` of them under FastV, none under FitPrune."""
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(fake_bench, "QUESTIONS", 600)

    def make(lost=3, pruners=("fastv", "fitprune"), budgets=(0.3, 0.5, 0.7), goal="flops", confirm=False, points=5.0):
        monkeypatch.setitem(fake_bench.LOST, "fastv", lost)
        settings = CellSettings(reductions=budgets)
        suites, allowed = ("gqa", "pope"), Thresholds(points)
        return Asked("m", suites, allowed, pruners, budgets, goal, confirm, settings, tmp_path / "results", None, "again")

    return make


def tuned(asked, tmp_path):
    return searched(asked, Bench(asked.settings, RunFolder(tmp_path / "run"), Store(asked.results)))


def lines(tmp_path):
    return (tmp_path / "log").read_text().splitlines()


def test_it_finds_writes_and_certifies_the_recipe_that_saves_most(asked, tmp_path):
    found = tuned(asked(), tmp_path)
    assert [(tried.candidate.name, tried.certified) for tried in found.search.tried] == [
        ("fastv@0.3", True),
        ("fastv@0.5", True),
        ("fitprune@0.7", True),
    ]
    assert found.notes == ["fastv@0.7: FastV cannot save 70.0%; it reaches 60.0%"]
    path = tmp_path / "recipe.json"
    found.write(path, tmp_path / "results")
    recipe = Recipe.load(path, require_certificate=True)
    certificate = recipe.certificate
    assert (certificate.model, certificate.weights, certificate.error) == ("m", "weights of m", 0.05)
    assert [(one.suite, one.margin, one.questions, one.data_digest) for one in certificate.suites] == [
        ("gqa", 5.0, 600, "digest"),
        ("pope", 5.0, 600, "digest"),
    ]
    assert all(72 <= one.asked < 300 for one in certificate.suites)
    said = describe(recipe, "recipe.json")
    assert "with 95% confidence over the whole search: gqa at most 5 points" in said
    assert "m, weights weights of m; void for others" in said
    record = json.loads((tmp_path / "recipe.tuned.json").read_text())
    assert record["best"] == {"name": "fitprune@0.7", "chain": "fitprune", "saved": 0.7}
    (kept,) = (tmp_path / "results/tuned").glob("*.json")
    assert kept.read_text() == (tmp_path / "recipe.tuned.json").read_text()
    shown = check_tuned(record)["frontier"]
    assert [(one["name"], one["saves"], one["certified"]) for one in shown] == [
        ("fastv@0.3", 0.3, True),
        ("fastv@0.5", 0.5, True),
        ("fitprune@0.7", 0.7, True),
    ]
    for one, tried in zip(shown, found.search.tried, strict=True):
        assert one["most"] == max(100 * part.high for part in tried.shown)
        assert one["asked"] == sum(part.asked for part in tried.shown)
    page = (tmp_path / "recipe.tuned.md").read_text()
    assert "**fitprune@0.7** saves 70% of the FLOPs of the visual tokens" in page
    assert "| fastv@0.5 | 50.0% | gqa |" in page
    assert "at most 5%" in page


def test_where_nothing_is_certified_there_is_a_report_and_no_recipe(asked, tmp_path):
    found = tuned(asked(lost=300, pruners=("fastv",), budgets=(0.3, 0.5)), tmp_path)
    assert found.best is None
    found.write(tmp_path / "recipe.json", tmp_path / "results")
    assert not (tmp_path / "recipe.json").exists()
    assert "No candidate is certified" in (tmp_path / "recipe.tuned.md").read_text()
    assert [tried.candidate.name for tried in found.search.tried] == ["fastv@0.3"]


def test_another_method_is_written_with_its_parameters(asked, tmp_path):
    found = tuned(asked(lost=0, pruners=("fastv",), budgets=(0.3,)), tmp_path)
    found.write(tmp_path / "choice.json", tmp_path / "results")
    record = json.loads((tmp_path / "choice.json").read_text())
    assert (record["pruner"], record["reduction"], record["params"]["ratio"]) == ("fastv", 0.3, 0.3)
    assert record["certificate"]["suites"][0]["suite"] == "gqa"
    with pytest.raises(RecipeError, match="is not a recipe"):
        Recipe.load(tmp_path / "choice.json")


def test_again_nothing_is_asked_and_a_killed_search_goes_on(asked, tmp_path, monkeypatch):
    whole = tuned(asked(), tmp_path)
    count = len(lines(tmp_path))
    again = tuned(asked(), tmp_path)
    assert len(lines(tmp_path)) == count
    assert again.search.tried == whole.search.tried

    elsewhere = asked()
    object.__setattr__(elsewhere, "results", tmp_path / "other")
    evaluate = fake_bench.FakeEvaluation.evaluate
    left = [9]

    def dies(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return evaluate(self, *arguments)

    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", dies)
    with pytest.raises(KeyboardInterrupt):
        tuned(elsewhere, tmp_path)
    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", evaluate)
    before = len(lines(tmp_path))
    assert tuned(elsewhere, tmp_path).search.tried == whole.search.tried
    assert len(lines(tmp_path)) - before == count - 9


def test_for_latency_what_saves_most_time_is_taken(asked, tmp_path, monkeypatch):
    times = {("fastv", 0.3): 0.4, ("fitprune", 0.3): 0.7}
    monkeypatch.setattr(
        fake_bench.FakeTiming,
        "of",
        lambda self, resolved: {"latency_ms": {"end_to_end_ratio": times[resolved.cell.pruner, resolved.cell.reduction]}},
    )
    found = tuned(asked(pruners=("fitprune", "fastv"), budgets=(0.3,), goal="latency"), tmp_path)
    assert (found.best.name, round(found.best.saved, 6)) == ("fastv@0.3", 0.6)
    assert "60% of the time of an answer" in found.headline()


def test_what_is_kept_for_confirmation_is_never_searched(asked, tmp_path, monkeypatch):
    seen = []
    evaluate = fake_bench.FakeEvaluation.evaluate

    def watched(self, resolved, journal=None, task=None, tally=None):
        seen.append((resolved.cell.is_dense, [] if task is None else list(task.rows)))
        return evaluate(self, resolved, journal, task, tally)

    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", watched)
    found = tuned(asked(pruners=("fitprune",), budgets=(0.3,), confirm=True), tmp_path)
    held = {suite: set(rows) for suite, (_, rows) in zip(("gqa", "pope"), seen[-2:], strict=True)}
    searched_rows = {row for dense, rows in seen[:-2] if not dense for row in rows}
    assert 60 <= len(held["gqa"]) <= 180
    assert not held["gqa"] & searched_rows
    assert {row // 2 for row in held["gqa"]}.isdisjoint(row // 2 for row in searched_rows)
    assert found.confirmed["gqa"].drop == 0
    assert found.confirmed["gqa"].n == len(held["gqa"])
    assert "never looked at" in found.markdown()
    assert found.record()["confirmed"]["gqa"]["verdict"] in ("pass", "undecided")
    assert found.holds
    found.confirmed["gqa"] = Drop(9.0, 6.0, 12.0, 100, 50)
    assert not found.holds


def test_a_search_of_what_cannot_be_is_refused(asked, tmp_path):
    with pytest.raises(FitPruneError, match=r"no candidate can be asked: fastv@0\.7: FastV cannot save"):
        tuned(asked(pruners=("fastv",), budgets=(0.7,)), tmp_path)
    require_mean("gqa", "exact_match", MEAN)
    with pytest.raises(FitPruneError, match="suite 'pope-f1': its pope_f1_score is no mean over questions"):
        require_mean("pope-f1", "pope_f1_score", F1)


def test_a_dense_model_that_guesses_is_refused(asked, tmp_path, monkeypatch):
    """Whoever has nothing to lose loses nothing."""
    monkeypatch.setitem(fake_bench.LOST, "fitprune", 0)
    evaluate = fake_bench.FakeEvaluation.evaluate

    def guesses(self, resolved, *arguments):
        found = evaluate(self, resolved, *arguments)
        for answer in found.answers.answers:
            answer.score = float(resolved.cell.suite == "gqa" or answer.doc_id % 5 == 0)
        found.answers.score = 100 if resolved.cell.suite == "gqa" else 20
        return found

    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", guesses)
    with pytest.raises(FitPruneError, match=r"the dense m scores 20\.0 on pope, below the 50 of guessing with 95 % confidence"):
        tuned(asked(pruners=("fitprune",)), tmp_path)


@pytest.mark.parametrize(
    ("weights", "digest", "said"),
    [
        ("weights of m", "digest", ""),
        ("others", "digest", "r.json: its certificate is void: weights is weights of m, and others was certified"),
        (
            "weights of m",
            "older",
            "r.json: its certificate is void: the data of gqa have the digest digest, and older was certified",
        ),
    ],
)
def test_a_run_says_where_the_certificate_of_its_recipe_is_void(asked, tmp_path, weights, digest, said):
    recipe = Recipe([30, 0], 100)
    suite = CertifiedSuite("gqa", "exact_match", digest, 5.0, 600, 100)
    made = Certificate("m", "r", weights, recipe.counts, 0.05, "x", 0, (suite,), "2026-01-02")
    recipe.provenance["certificate"] = made.to_record()
    bench = Bench(asked().settings, RunFolder(tmp_path / "run"), None)
    bench.resolver.pruners = SimpleNamespace(of=lambda cell, facts: FitPrune(recipe))
    assert bench.run(Cell("m", "fitprune", 0.3, "gqa", recipe="r.json")).result.note == said


def test_features_are_ranks_of_how_certain_an_answer_is():
    made = answers([1.0] * 4, ["a", "b", "c", "d"]).answers
    assert not features_of(made).any()
    for answer, margin, entropy, length in zip(made, (5, 1, 3, 9), (0.1, 2, 1, 0), (2, 2, 2, 8), strict=True):
        answer.margin, answer.entropy, answer.new_tokens = margin, entropy, length
    found = features_of(made)
    assert found[:, 0].argsort().tolist() == found[:, 1].argsort().tolist() == [3, 0, 2, 1]
    assert found.mean(0) == pytest.approx(0, abs=1e-9)
    assert found[:3, 2].tolist() == pytest.approx([found[0, 2]] * 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--max-drop", "0"), "error: --max-drop 0: gqa needs a number of points above 0 and below 100"),
        (("--max-drop", "pope:1"), "error: unknown suite 'pope'; known: gqa."),
        (("--pruner", "dense"), "error: --pruner dense: it saves nothing; name methods that prune"),
        (("--for", "time"), "error: --for time is not flops or latency"),
        (("--suite", "mme"), "error: suite 'mme': its mme_perception_score is no mean over questions"),
        (("-o", "recipe.txt"), "error: cannot write recipe.txt: a recipe's name ends in .json"),
        (("-o", "nowhere/recipe.json"), "error: cannot write nowhere/recipe.json: its folder does not exist"),
        (("--pruner", "fastvv"), "error: unknown pruner 'fastvv'"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(place, given, said, capsys):
    options = {"--model": str(place / "m"), "--data": str(place / "d"), "--suite": "gqa", "--max-drop": "1"}
    options |= dict([given])
    assert main(["tune", *(word for pair in options.items() for word in pair)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_the_command_ends_as_the_search_does_and_its_plan_asks_nothing(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(harness.tuning.run, "Bench", Bench)
    common = ["tune", "--model", str(place / "m"), "--data", str(place / "d"), "--suite", "gqa", "--reduction", "0.3"]
    common += ["--results", str(tmp_path / "r"), "-o", str(tmp_path / "best.json"), "--max-drop"]
    assert main([*common, "5", "--plan"]) == 0
    assert "fitprune@0.3" in capsys.readouterr().out
    assert not (tmp_path / "log").exists()
    monkeypatch.setattr(fake_bench, "QUESTIONS", 600)
    assert main([*common, "5", "--confirm"]) == 0
    out, err = capsys.readouterr()
    assert "**fitprune@0.3** saves 30%" in out
    assert f"python -m harness tune --model {place / 'm'}" in out
    assert "--confirm" in out
    assert "fitprune@0.3 on gqa: 0 of" in err
    monkeypatch.setitem(fake_bench.LOST, "fitprune", 400)
    assert main([*common, "1", "--results", str(tmp_path / "other")]) == 1


def test_the_plan_says_how_many_questions(asked, monkeypatch):
    monkeypatch.setattr(harness.tuning.run, "build_task", lambda *_: fake_bench.Questions(list(range(600))))
    said = "\n".join(plan_lines(asked()))
    # ln(40) / -ln(0.95): two methods, half of 5 % each.
    assert " 72 " in said
    assert " 144 " in said
    assert "at most 6 candidates" in said
