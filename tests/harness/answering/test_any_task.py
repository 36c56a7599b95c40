"""Tasks of which nothing is known but what lmms-eval says: what they score, or why not, in a line."""

import dataclasses
import importlib.util
import math
import os
import random
import re
import sys
import time
from types import SimpleNamespace

import pytest

from fitprune.errors import FitPruneError
from harness.answering import scoring, trial
from harness.answering.evaluate import conditions
from harness.answers import MEAN, RESAMPLED, Answer, Answers
from harness.cells import CellSettings
from harness.results.computed import computed
from harness.results.strict_json import strict
from harness.statistics import half_samples, paired_drop
from harness.tasks import SUITES, Metric, build, specs
from harness.tasks.build import build_task, task_config, task_folder
from harness.tasks.specs import find_suite, task_folders
from tests.support import stub_rows
from tests.support.evaluating import evaluate_cell
from tests.support.own_task import claimed, write_rows, write_task
from tests.support.results import result
from tests.support.stub_rows import columns_of, write_stub
from tests.support.tiny_llava import scripted


@pytest.fixture
def colors(tmp_path, monkeypatch):
    """Registers the task `colors` with these metrics; returns the folder of its data."""

    def register(*metrics, change=lambda spec: spec):
        monkeypatch.setenv("COLORS", ",".join(metrics))
        monkeypatch.setitem(specs._SHIPPED, "colors", change(write_task(tmp_path / "task", list(metrics))))
        find_suite.cache_clear()
        build.task_manager.cache_clear()
        return str(write_rows(tmp_path / "d"))

    yield register
    find_suite.cache_clear()
    build.task_manager.cache_clear()


def test_an_average_over_categories_is_resampled_and_compared_as_it_is(colors):
    data = colors("macro")
    dense = evaluate_cell(scripted({"": "red"}), None, "colors", data=data)
    # Four of eight are red, both rare ones (0 and 4) among them: (2 / 2 + 2 / 6) / 2.
    assert dense.score == pytest.approx(100 * (1 + 2 / 6) / 2)
    assert (dense.statistic, dense.metric, len(dense.replicates)) == (RESAMPLED, "macro", 200)
    images = [answer.image for answer in dense.answers]
    for half, points in zip(half_samples(images), dense.replicates, strict=True):
        rare = [n % 2 == 0 for n in half if n % 4 == 0]
        common = [n % 2 == 0 for n in half if n % 4]
        kinds = [sum(kind) / len(kind) for kind in (rare, common) if kind]
        assert points == pytest.approx(100 * sum(kinds) / len(kinds))
    pruned = evaluate_cell(scripted({"": "blue"}), None, "colors", data=data)
    drop = paired_drop(dense, pruned)
    assert drop.drop == pytest.approx(dense.score - pruned.score)
    assert drop.low < drop.drop < drop.high
    assert (drop.n, drop.clusters) == (8, 4)


def test_a_stored_result_is_read_with_its_halves(colors):
    dense = evaluate_cell(scripted({"": "red"}), None, "colors", data=colors("macro"))
    pruned = evaluate_cell(scripted({"0": "red", "": "blue"}), None, "colors", data=colors("macro"))
    known = {"suite": "colors", "metric": "macro", "statistic": RESAMPLED, "data_digest": dense.data_digest}
    known |= {"score": pruned.score, "dense_score": dense.score, "generation": dense.generation}
    made = result(**known, replicates=pruned.replicates, dense_replicates=dense.replicates)
    stored = type(made).from_json(strict(made.to_json()))
    records = strict(list(pruned.to_records(dense)))
    own, before = stored.both(records)
    again, drop = computed(stored, own, before), paired_drop(dense, pruned)
    assert again.drop_ci95 == pytest.approx((drop.low, drop.high))
    assert again.note == ""  # questions without a score of their own lack nothing


@pytest.mark.parametrize(("metric", "full"), [("share", 1), ("points", 100)])
def test_a_mean_is_one_where_it_is_proven_in_shares_or_in_points(colors, metric, full):
    answers = evaluate_cell(scripted({"": "red"}), None, "colors", data=colors(metric))
    assert (answers.statistic, answers.score) == (MEAN, pytest.approx(50))
    assert [answer.score for answer in answers.answers] == [1, 0] * 4


def test_a_mean_on_all_questions_that_is_none_on_halves_is_no_mean(colors):
    right_everywhere = {f"color {n}": ("red", "blue")[n % 2] for n in range(8)}
    answers = evaluate_cell(
        scripted(right_everywhere), None, "colors", data=colors("macro", change=lambda spec: with_scores(spec))
    )
    assert (answers.statistic, answers.score) == (MEAN, 100)
    wrong = evaluate_cell(
        scripted(right_everywhere | {"color 0": "blue"}), None, "colors", data=colors("macro", change=with_scores)
    )
    assert wrong.statistic == RESAMPLED
    assert paired_drop(answers, wrong).drop == pytest.approx(100 * (1 / 2) / 2)  # compared as the one that is no mean
    # Half of the rare and half of the common ones are right, so that here alone the mean is their average.
    half = right_everywhere | {"color 4": "blue", "color 5": "red", "color 6": "blue", "color 7": "red"}
    assert evaluate_cell(scripted(half), None, "colors", data=colors("macro", change=with_scores)).statistic == RESAMPLED


def with_scores(spec):
    return dataclasses.replace(spec, metric=Metric("macro", score=lambda value: value["right"]))


def test_a_suite_that_claims_to_be_a_mean_and_is_none_is_refused(colors):
    with pytest.raises(FitPruneError, match=r"colors: the mean .* macro is .* aggregate is 66.6667: it is no mean of them"):
        evaluate_cell(
            scripted({"": "red"}),
            None,
            "colors",
            data=colors("macro", change=lambda spec: dataclasses.replace(claimed(spec), metric=counting(MEAN))),
        )


def counting(statistic):
    return Metric("macro", statistic, score=lambda value: value["right"])


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ("submission", "only writes a file to hand in|writes a file to hand in"),
        ("share,macro", "has 2 metrics; name one, as colors:METRIC: share, macro"),
        ("lower", "lower is better in lower, so that a drop would be a gain"),
        ("total", "total of its task adds up over questions; it is no average of them"),
        ("thousands", "goes up to 1000, which is neither 0-1 nor 0-100"),
        ("restless", "is another number when it is made again"),
        ("words", "words of its task is no number, but \"{'all'"),
        ("fragile", "cannot score an answer that it cannot read: KeyError"),
        ("never", "never of its task scores none of the 8 questions"),
        ("nothing", "nothing of its task is nan for every answer that was tried, so that nothing says what it goes up to"),
        ("judged", "its scoring asks a language model; give --judge URL"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_any_work(colors, metrics, words):
    data = colors(*metrics.split(","))
    with pytest.raises(FitPruneError, match=f"^suite 'colors'.*({re.escape(words).replace(re.escape('|'), '|')})") as refused:
        conditions("colors", CellSettings(data), "float32")
    assert "\n" not in str(refused.value)


def test_a_metric_is_named_after_the_task(colors):
    data = colors("share", "macro")
    spec = find_suite("colors:macro")
    assert (spec.name, spec.metric.name, spec.metric.full) == ("colors:macro", "macro", None)
    assert evaluate_cell(scripted({"": "red"}), None, "colors:macro", data=data).suite == "colors:macro"
    with pytest.raises(FitPruneError, match="its task has no metric mackro; it has share, macro"):
        conditions("colors:mackro", CellSettings(data), "float32")


def test_a_metric_of_one_category_is_tried_on_the_first_questions_that_it_scores(colors, monkeypatch):
    monkeypatch.setattr(trial, "ROWS", 4)  # of which `late` scores none
    answers = evaluate_cell(scripted({"": "red"}), None, "colors", data=colors("late"))
    assert (answers.metric, answers.statistic, answers.score) == ("late", MEAN, 50)
    assert [answer.score for answer in answers.answers][6:] == [1, 0]
    assert all(math.isnan(answer.score) for answer in answers.answers[:6])


def test_questions_hang_on_their_first_image_also_under_a_limit(colors):
    data = colors("share")
    images = [answer.image for answer in evaluate_cell(scripted({"": "red"}), None, "colors", data=data).answers]
    assert [images.index(image) for image in images] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert sorted(row // 2 for row in build_task("colors", data, limit=4).rows) == list(range(4))


def test_the_tasks_code_is_in_the_key(colors):
    data = colors("share")
    before = conditions("colors", CellSettings(data), "float32")["task_code"]
    with (task_folder("colors") / "utils.py").open("a") as code:
        code.write("# other\n")
    assert conditions("colors", CellSettings(data), "float32")["task_code"] != before


def test_names_of_tasks_are_known_with_the_nearest():
    assert find_suite("mmmu_val").folder == "mmmu"
    assert find_suite("vqav2_val") is SUITES["vqav2"]
    with pytest.raises(FitPruneError, match="unknown suite 'mmmu_vall'; did you mean mmmu_val or"):
        find_suite("mmmu_vall")
    with pytest.raises(FitPruneError, match="unknown suite 'x'; known: ai2d, chartqa,"):
        find_suite("x")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("seedbench_ppl", "is 'multiple_choice', which compares the likelihoods of given answers"),
        ("mvbench_moving_count", "is about video, or its files come in archives as video does; tasks are asked about images"),
        ("videomme_w_subtitle", "is about video"),  # whatever its own code would need
        ("mix_evals_image2text_mc", "is about video, or its files come in archives as video does"),
        ("mmsearch_end2end", "asks in several rounds"),
        ("mmt_test", "writes a file to hand in"),
        ("mmmu_val_pass64", "asks each question 64 times"),
        ("mmlu_nutrition_generative", "shows no picture"),
    ],
)
def test_tasks_of_other_kinds_are_refused_by_their_configuration(task, words):
    with pytest.raises(FitPruneError, match=f"^suite '{task}': its task.*{words}"):
        task_config(task)


def test_a_metric_list_may_have_an_empty_entry():
    """As PLM-VideoBench's have."""
    build._refuse_other_kinds("x", {"doc_to_visual": "image", "metric_list": [None, {"metric": "accuracy"}]})


def set_nowhere():
    return os.environ["NOWHERE_SET"]


def looked_up():
    return {}["A"]


def of_a_namespace():
    import xml.no_such_module  # noqa: F401


def imported_twice():
    try:
        import no_such_module.inner  # noqa: F401
    except ImportError as error:
        raise ImportError("tried two ways") from error


@pytest.mark.parametrize(
    ("raising", "said"),
    [
        (set_nowhere, "suite 'x': it stops: it reads the environment variable NOWHERE_SET, which is not set"),
        (looked_up, "suite 'x': it stops: KeyError: 'A'"),
        (imported_twice, "suite 'x' needs the Python module 'no_such_module', which is not installed"),
        (of_a_namespace, "suite 'x' needs the Python module 'xml.no_such_module', which is not installed"),
        (sys.exit, "suite 'x': it stops: SystemExit:"),
    ],
)
def test_what_a_task_s_code_raises_is_said_for_what_it_is(raising, said):
    with pytest.raises(FitPruneError) as refused, build.refusing("x", "it stops"):
        raising()
    assert str(refused.value).strip() == said


def generating():
    """Tasks that no suite is, and that show something, by the text of their folders' files."""
    shown = {}
    root = task_folder("gqa").parent
    for folder in sorted(set(task_folders().values())):
        text = "".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted((root / folder).rglob("*.y*ml")))
        shown[folder] = "doc_to_visual" in text and "generate_until" in text
    ours = {name for spec in SUITES.values() for name in (spec.name, spec.task)}
    return sorted(task for task, folder in task_folders().items() if shown[folder] and task not in ours)


def is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# What makes a refusal true, looked up where the refusal was not.
TRUE = {
    r"needs the Python module '([\w.]+)'": lambda found, text: not is_there(found[1]),
    r"about (video|audio)|about video or sound": lambda found, text: "video" in text or "audio" in text,
    r"asks a language model": lambda found, text: re.search(r"openai|API_URL|judge|get_server|gpt", text) is not None,
    r"has (\d+) metrics; name one, as \S+ (.+)$": lambda found, text: all(name in text for name in found[2].split(", ")),
    r"writes a file to hand in": lambda found, text: "submission" in text or "submit" in text,
    r"has no picture": lambda *_: True,
    r"asks each question (\d+) times": lambda found, text: f"repeats: {found[1]}" in text,
    r"lower is better in|is no number|adds up over|goes up to|is another number|for every answer|scores none": lambda *_: True,
    r"lmms-eval (cannot|stopped)": lambda *_: True,
    r"reads the environment variable (\w+)": lambda found, text: found[1] in text,
    r"sampling or beams": lambda found, text: "do_sample" in text or "num_beams" in text or "temperature" in text,
}


@pytest.mark.parametrize(
    ("seed", "run"),
    [(19, 5), *(pytest.param(*drawn, marks=pytest.mark.exhaustive) for drawn in ((101, 1), (102, 2), (103, 6)))],
)
def test_40_tasks_drawn_at_random_run_or_are_refused_in_one_line_with_the_true_reason(seed, run, tmp_path):
    ran, refused, model = [], {}, scripted({"": "A"})
    for task in random.Random(seed).sample(generating(), 400):
        outcome = outcome_of(task, tmp_path, model)
        if re.search(r"its task is '\w+', which|shows no picture", str(outcome)):
            continue  # no generating task about images
        if isinstance(outcome, Answers):
            assert 0 <= outcome.score <= 100
            assert outcome.statistic in (MEAN, RESAMPLED)
            ran.append(task)
        else:
            refused[task] = outcome
        if len(ran) + len(refused) == 40:
            break
    assert len(ran) + len(refused) == 40
    assert len(ran) >= run, refused  # fewer would mean that one of those that run is refused
    for task, said in refused.items():
        assert said.startswith((f"suite '{task}'", f"suite '{task}:"))
        assert "\n" not in said
        text = "".join(
            path.read_text(encoding="utf-8") for path in task_folder(task).rglob("*") if path.suffix in (".py", ".yaml")
        )
        assert any(reason(found, text) for pattern, reason in TRUE.items() if (found := re.search(pattern, said))), said


def outcome_of(task, folder, model, metric=""):
    """A task's answers to stub rows, by the first of its metrics where it has several, or why there are none."""
    try:
        config = task_config(task)
        split = config.get("test_split") or config.get("validation_split")
        write_stub(folder, task, config.get("dataset_name"), split, columns_of(config))
        return evaluate_cell(model, None, task + metric, data=str(folder), batch_size=8)
    except FitPruneError as error:
        several = re.search(r"name one, as \S+:METRIC: ([^,]+)", str(error))
        return outcome_of(task, folder, model, f":{several[1]}") if several else str(error)


@pytest.mark.parametrize(
    "task",
    [
        "refcoco_bbox_rec_test",  # whose target is four numbers
        "mmstar_ko",  # with metrics of categories
        "websrc_val",  # whose column `image` is text that its own code decodes
    ],
)
def test_tasks_with_targets_metrics_and_pictures_of_their_own_kind_run(task, tmp_path):
    assert isinstance(outcome_of(task, tmp_path, scripted({"": "A"})), Answers)


def test_a_column_of_another_type_than_its_task_counts_with_is_the_reason(tmp_path, monkeypatch):
    """MMVP pairs its questions by their number, which is no text."""
    answers = outcome_of("mmvp", tmp_path / "numbers", scripted({"": "A"}))
    assert (answers.metric, answers.score, len(answers.answers)) == ("mmvp_accuracy", 50, stub_rows.ROWS)
    real = stub_rows.value_of
    as_text = lambda name, row, column: str(row) if name == "Index" else real(name, row, column)  # noqa: E731
    monkeypatch.setattr(stub_rows, "value_of", as_text)
    said = outcome_of("mmvp", tmp_path / "texts", scripted({"": "A"}))
    assert said.startswith("suite 'mmvp:mmvp_accuracy': lmms-eval cannot score an answer that says the target: TypeError")
    assert "\n" not in said


def test_5000_answers_are_scored_by_resampling_within_10_seconds():
    """MMMU's own aggregation: thirty subjects in six domains."""
    from lmms_eval.tasks.mmmu.utils import mmmu_aggregate_results

    values = [
        {"id": f"validation_Math_{n}", "subdomain": ("Math", "Art", "Physics")[n % 3],
         "question_type": "multiple-choice", "answer": "A", "parsed_pred": ["AB"[n % 7 == 0]]} for n in range(5000)
    ]  # fmt: skip
    task = SimpleNamespace(aggregation=lambda: {"mmmu_acc": mmmu_aggregate_results})
    answers = [Answer(n, f"i{n}", "", "A", "A", math.nan) for n in range(5000)]
    began = time.process_time()
    made = scoring.scored(
        dataclasses.replace(find_suite("mmmu_val"), metric=Metric("mmmu_acc")),
        task, values, answers, {"mmmu_acc,none": mmmu_aggregate_results(values)},
    )  # fmt: skip
    assert time.process_time() - began < 10
    assert made.statistic == RESAMPLED
    assert not any(map(math.isnan, made.replicates))
