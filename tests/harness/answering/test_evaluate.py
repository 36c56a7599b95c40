"""A cell's score: what lmms-eval gives for known answers, recomputed here by hand."""

import logging
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from fitprune import FitPrune, Recipe
from fitprune.errors import FitPruneError
from harness.answering.evaluate import sample_inputs
from harness.answering.lmms_model import FitPruneLMM
from harness.models.loading import LoadedModel, load_model
from harness.tasks.build import build_task
from harness.tasks.isolation import lmms_eval_evaluator
from tests.support.evaluating import evaluate_cell
from tests.support.tiny_llava import people, picture, save_tiny, scripted, write, write_suites

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_suites(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(save_tiny(tmp_path_factory.mktemp("model"))), device="cpu")


def test_gqa_is_exact_match(data: str) -> None:
    model = scripted({"color 0": "red", "color 1": "Red .", "color 2": "blue", "color 3": "red blue", "": "red"})
    answers = evaluate_cell(model, None, "gqa", data=data, batch_size=4)
    # Case does not matter to the word-level tokenizer, so "Red ." comes out as an unknown word: wrong.
    assert [answer.score for answer in answers.answers] == [1, 0, 0, 0, 1, 1]
    assert answers.score == pytest.approx(50)
    assert [answer.target for answer in answers.answers] == ["red"] * 6
    assert answers.metric == "exact_match"
    assert answers.prompts == 6


def test_a_run_keeps_no_documents_and_equal_answers_once(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, kept = lmms_eval_evaluator(), {}
    generated, real = [], evaluator.simple_evaluate
    answer = FitPruneLMM.generate_until
    monkeypatch.setattr(FitPruneLMM, "generate_until", lambda self, asked: generated.extend(answer(self, asked)) or generated)
    monkeypatch.setattr(evaluator, "simple_evaluate", lambda **options: kept.update(real(**options)) or kept)
    task = build_task("gqa", data)
    assert evaluate_cell(scripted({"": "red"}), None, "gqa", data=data, task=task).prompts == 6
    assert "results" in kept
    assert "samples" not in kept
    assert len({id(answer) for answer in generated}) < len(generated) == 6
    # Nor are they left in the task that was handed in.
    assert not {"_instances", "process_results"} & set(vars(task))


def test_vqav2_is_the_annotators_soft_score(tmp_path: Path) -> None:
    opinions = {0: ["circle", "square"], 1: ["circle", "circle", "square"], 2: ["circle"], 3: ["red", "square"]}
    rows = [
        {"question": f"what shape {n} ?", "question_id": n, "image": picture(n), "answers": people(*opinions[n])}
        for n in opinions
    ]
    write(tmp_path, "vqav2_val/default/validation", rows)
    answers = evaluate_cell(scripted({"": "circle"}), None, "vqav2", data=str(tmp_path), batch_size=3)
    # Averaged over the ten ways to leave one annotator out, min(matches among the other nine / 3, 1):
    # one of ten said so: 9/10 x 1/3; two of ten: 8/10 x 2/3 + 2/10 x 1/3; all: 1; none: 0.
    expected = [0.3, 8 / 10 * 2 / 3 + 2 / 10 / 3, 1, 0]
    assert [answer.score for answer in answers.answers] == pytest.approx(expected)
    assert answers.score == pytest.approx(100 * sum(expected) / 4)
    assert [answer.target for answer in answers.answers] == ["square", "square", "circle", "square"]


def test_textvqa_is_the_annotators_soft_score(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = scripted({"written 0": "stop", "written 1": "left", "written 2": "stop ASSISTANT : no", "": "ten"})
    answers = evaluate_cell(model, None, "textvqa", data=data, batch_size=3)
    two = 8 / 10 * 2 / 3 + 2 / 10 / 3  # "stop" was said by two of ten
    assert [answer.score for answer in answers.answers] == pytest.approx([two, 1, 0, 0])
    assert answers.score == pytest.approx(100 * (two + 1) / 4)
    assert [answer.target for answer in answers.answers] == ["left"] * 4
    assert not list(tmp_path.iterdir()), "lmms-eval's submission file belongs into a temporary folder"


def test_pope_is_accuracy_of_the_bare_word(data: str) -> None:
    model = scripted({"square 0": "no", "square 1": "yes", "square 2": "no .", "": "yes"})
    answers = evaluate_cell(model, None, "pope", data=data, batch_size=5)
    right = [1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]  # question n: yes where n is odd; "no ." is not the word
    assert [answer.score for answer in answers.answers] == right
    assert answers.score == pytest.approx(100 * sum(right) / 12)
    assert answers.metric == "pope_accuracy"
    assert len({answer.image for answer in answers.answers}) == 2


def test_mme_is_accuracy_plus_pair_accuracy_over_the_perception_categories(data: str) -> None:
    model = scripted(
        {"red existence 0": "yes", "red existence 1": "yes", "blue existence 0": "yes", "red color": "yes", "": "no"}
    )
    answers = evaluate_cell(model, None, "mme", data=data, batch_size=5)
    # existence: pair 0 half right (50 + 0), pair 1 right (100 + 100); color: both pairs right. The third is cognition.
    existence, color = (50 + 200) / 2, 200
    assert answers.score == pytest.approx(100 * (existence + color) / 400)
    assert answers.metric == "mme_perception_score"
    by_group = {group: [a.score for a in answers.answers if a.group == group] for group in ("existence", "color")}
    assert by_group == {"existence": [1, 0, 1, 1], "color": [1, 1, 1, 1]}
    others = [answer.score for answer in answers.answers if answer.group == "code_reasoning"]
    assert len(others) == 4
    assert all(math.isnan(score) for score in others)


def test_scienceqa_takes_the_letter(data: str) -> None:
    model = scripted({"color 0": "A", "color 1": "B", "color 2": "A", "": "red"})
    answers = evaluate_cell(model, None, "scienceqa", data=data, batch_size=4)
    assert [answer.score for answer in answers.answers] == [1, 1, 0, 0]
    assert answers.score == pytest.approx(50)
    assert [answer.target for answer in answers.answers] == ["A", "B", "C", "A"]


def test_a_limited_cell_asks_a_part_of_the_same_questions(data: str) -> None:
    model = scripted({"color 0": "red", "color 3": "red", "": "blue"})
    whole = evaluate_cell(model, None, "gqa", data=data)
    part = evaluate_cell(model, None, "gqa", data=data, limit=4)
    assert part.prompts == len(part.answers) == 4
    by_id = {answer.doc_id: answer for answer in whole.answers}
    assert all(by_id[answer.doc_id] == answer for answer in part.answers)
    assert part.score == pytest.approx(100 * np.mean([answer.score for answer in part.answers]))
    assert part.data_digest == whole.data_digest


def test_notes_of_the_data_reach_the_result(data: str) -> None:
    answers = evaluate_cell(scripted({"": "yes"}), None, "mme", data=data, limit=7)
    assert answers.prompts == 6
    assert answers.notes == ["mme: 7 questions asked, 6 used: what is scored together stays together"]


def test_batch_size_and_repetition_change_nothing(data: str, loaded: LoadedModel) -> None:
    pruner = FitPrune(Recipe(drop=[4, 6, 0], visual_tokens=16))
    first = evaluate_cell(loaded, pruner, "gqa", data=data, batch_size=1)
    again = evaluate_cell(loaded, pruner, "gqa", data=data, batch_size=6, seed=1)
    assert first.answers == again.answers
    assert first.score == again.score
    assert first.tokens["new_tokens"] == again.tokens["new_tokens"]
    assert first.tokens["visual_tokens"] == 16
    dense = evaluate_cell(loaded, None, "gqa", data=data, batch_size=6)
    assert [answer.answer for answer in dense.answers] != [answer.answer for answer in first.answers]
    assert [answer.image for answer in dense.answers] == [answer.image for answer in first.answers]


def test_questions_about_one_image_share_its_name(data: str) -> None:
    images = [answer.image for answer in evaluate_cell(scripted({"": "red"}), None, "gqa", data=data).answers]
    assert images[0] == images[1] != images[2] == images[3] != images[4] == images[5]
    assert all(len(image) == 16 for image in images)


def test_a_model_that_says_nothing_is_an_error(data: str) -> None:
    with pytest.raises(FitPruneError, match="all 6 answers of 'scripted' on gqa are empty"):
        evaluate_cell(scripted({"": ""}), None, "gqa", data=data)


def test_sampled_inputs_are_those_of_the_cell(data: str) -> None:
    model = scripted({"": "yes"})
    evaluate_cell(model, None, "pope", data=data, batch_size=5)
    batches = list(sample_inputs(model, "pope", data=data, batch_size=5))
    assert len(batches) == len(model.model.batches) == 3
    for mine, generated in zip(batches, model.model.batches, strict=True):
        assert all(torch.equal(value, generated[name]) for name, value in mine.items())


def test_the_caller_notices_nothing(data: str, capfd: pytest.CaptureFixture) -> None:
    import filelock
    from loguru import logger

    messages: list = []
    handler = logger.add(messages.append)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    level, call = logging.getLogger().level, filelock.FileLock.__class__.__call__
    evaluate_cell(scripted({"": "yes"}), None, "mme", data=data)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert logging.getLogger().level == level
    assert filelock.FileLock.__class__.__call__ is call
    logger.info("still mine")
    assert len(messages) == 1
    assert "still mine" in messages[0]
    logger.remove(handler)
    printed = capfd.readouterr()
    assert "lmms" not in printed.out + printed.err
    assert "Postprocessing" not in printed.err
