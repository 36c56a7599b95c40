"""Generation: batches never change an answer, prompts are padded on the left, stop strings cut, pruners are applied."""

import math
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from PIL import Image

from fitprune import FitPrune, Recipe
from fitprune.errors import FitPruneError
from harness.models.loading import LoadedModel, load_model
from harness.tasks.isolation import lmms_eval_evaluator
from tests.support.tiny_llava import save_tiny, scripted

pytestmark = pytest.mark.releases
lmms_eval_evaluator()  # before the module below, which imports lmms-eval

from harness.answering.arguments import make_pruner  # noqa: E402
from harness.answering.lmms_model import FitPruneLMM  # noqa: E402

COLOURS = ["red", "blue", "green", "white", "black", "gray", "navy", "teal", "lime", "pink", "gold"]
QUESTIONS = ["Is there a red square ?", "what color ?", "left circle with a red square in the green phrase ?"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    loaded = load_model(str(save_tiny(tmp_path_factory.mktemp("model"))), device="cpu")
    loaded.model.generation_config.eos_token_id = loaded.processor.tokenizer.eos_token_id  # answers as long as they may be
    return loaded


def requests(model: FitPruneLMM, questions: list[str], **options: object) -> list[SimpleNamespace]:
    """lmms-eval requests about one plain image each; options as a task's generation_kwargs."""
    images = [Image.new("RGB", (40, 32), COLOURS[place % len(COLOURS)]) for place in range(len(questions))]
    rows = [{"place": place} for place in range(len(questions))]
    model.task_dict["task"] = {"test": Dataset.from_list(rows)}

    def visual(doc: dict) -> list[Image.Image]:
        return [images[doc["place"]]]

    given = {"until": ["\n\n"], "max_new_tokens": 12, "temperature": 0, "do_sample": False, **options}
    return [SimpleNamespace(args=(question, given, visual, place, "task", "test")) for place, question in enumerate(questions)]


def texts(model: FitPruneLMM, questions: list[str], **options: object) -> list[str]:
    return [result.text for result in model.generate_until(requests(model, questions, **options))]


@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
def test_batches_never_change_an_answer(loaded: LoadedModel, pruned: bool) -> None:
    questions = [QUESTIONS[place % 3] for place in range(11)]
    pruner = FitPrune(Recipe(drop=[4, 6, 0], visual_tokens=16)) if pruned else None
    single, seven = (FitPruneLMM(loaded, pruner, batch_size=size) for size in (1, 7))
    alone = texts(single, questions)
    assert texts(seven, questions) == alone
    assert len(set(alone)) > 3
    assert single.records == seven.records


def test_an_answer_is_that_of_plain_generate(loaded: LoadedModel) -> None:
    model = FitPruneLMM(loaded, batch_size=3)
    answers = texts(model, QUESTIONS)
    for place, question in enumerate(QUESTIONS):
        inputs = loaded.processor(
            images=[Image.new("RGB", (40, 32), COLOURS[place])],
            text=[f"USER: <image>\n{question} ASSISTANT:"],
            return_tensors="pt",
        )
        tokens = loaded.model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert answers[place] == loaded.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_a_record_holds_how_certain_the_first_token_was(loaded: LoadedModel) -> None:
    model = FitPruneLMM(loaded, batch_size=3)
    texts(model, QUESTIONS)
    for place, question in enumerate(QUESTIONS):
        image = Image.new("RGB", (40, 32), COLOURS[place])
        inputs = loaded.processor(images=[image], text=[f"USER: <image>\n{question} ASSISTANT:"], return_tensors="pt")
        chances = loaded.model(**inputs).logits[0, -1].softmax(-1)
        first, second = chances.sort(descending=True).values[:2].tolist()
        record = model.records["task", place]
        assert record.margin == pytest.approx(math.log(first / second), abs=1e-4)
        assert record.entropy == pytest.approx(-(chances * chances.log()).sum().item(), abs=1e-4)


def test_a_pruner_is_applied_and_leaves_no_trace(loaded: LoadedModel) -> None:
    seen: list = []
    pruner = FitPrune(Recipe(drop=[8, 0, 8], visual_tokens=16))
    model = FitPruneLMM(loaded, pruner, batch_size=2, observer=seen.append)
    dense = texts(FitPruneLMM(loaded), QUESTIONS)
    pruned = texts(model, QUESTIONS)
    assert texts(FitPruneLMM(loaded), QUESTIONS) == dense != pruned
    assert [batch.inputs["input_ids"].shape[0] for batch in seen] == [2, 1]
    assert all(
        batch.cost.new == [model.records["task", place].new_tokens for place in places]
        for batch, places in zip(seen, [[2, 0], [1]], strict=True)
    )
    for batch in seen:
        assert batch.trace.visual_tokens.tolist() == [16] * len(batch.keys)
        assert [counts.tolist()[0] for counts in batch.trace.visual_out] == [8, 8, 0]


def test_prompts_are_padded_on_the_left_longest_first() -> None:
    loaded = scripted({"Is there": "yes", "what": "red", "left": "blue"})
    model = FitPruneLMM(loaded, batch_size=2)
    assert texts(model, QUESTIONS) == ["yes", "red", "blue"]
    first, second = (batch["attention_mask"] for batch in loaded.model.batches)
    assert first.shape[1] > second.shape[1]
    assert first.tolist()[0] == [1] * first.shape[1]
    padded = first.tolist()[1]
    assert padded == sorted(padded)
    assert 0 in padded
    lengths = {place: record.prompt_tokens for (_, place), record in model.records.items()}
    assert lengths == {2: first.shape[1], 0: sum(padded), 1: second.shape[1]}


def test_tokens_are_counted_per_question() -> None:
    model = FitPruneLMM(scripted({"Is there": "yes", "what": "red blue green", "left": "no no"}), batch_size=3)
    results = model.generate_until(requests(model, QUESTIONS))
    records = [model.records["task", place] for place in range(3)]
    assert [record.new_tokens for record in records] == [2, 4, 3]  # the end token included, padding not
    assert [record.visual_tokens for record in records] == [16] * 3
    assert [result.token_counts.output_tokens for result in results] == [2, 4, 3]
    assert len({record.image for record in records}) == 3


@pytest.mark.parametrize(
    ("until", "cut"),
    [
        (["."], "yes"),
        (".", "yes"),
        (["stop", "."], "yes"),
        (["no"], "yes . stop"),
        (["\n\n"], "yes . stop no"),
        ([""], "yes . stop no"),
        (None, "yes . stop no"),
    ],
)
def test_stop_strings_cut(until: object, cut: str) -> None:
    model = FitPruneLMM(scripted({"": "yes . stop no"}))
    assert texts(model, QUESTIONS[:1], until=until) == [cut]


def test_a_task_without_a_token_limit_gets_one(loaded: LoadedModel) -> None:
    model = FitPruneLMM(scripted({"": "yes"}))
    texts(model, QUESTIONS[:1], max_new_tokens=None)
    texts(model, QUESTIONS[:1], max_new_tokens=5)
    assert [batch["max_new_tokens"] for batch in model.loaded.model.batches] == [128, 5]


def test_requests_with_other_settings_are_not_mixed() -> None:
    model = FitPruneLMM(scripted({"": "yes no"}), batch_size=8)
    mixed = [*requests(model, QUESTIONS), *requests(model, QUESTIONS, max_new_tokens=3)]
    assert [result.text for result in model.generate_until(mixed)] == ["yes no"] * 6
    assert [(batch["max_new_tokens"], len(batch["input_ids"])) for batch in model.loaded.model.batches] == [
        (12, 3),
        (3, 3),
    ]


def test_a_marker_of_the_image_inside_a_question_is_not_a_second_image(loaded: LoadedModel) -> None:
    model = FitPruneLMM(loaded)
    assert texts(model, ["<image>\nwhat color ?"]) == texts(model, ["what color ?"])


def test_errors_are_not_swallowed(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(loaded.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        texts(FitPruneLMM(loaded), QUESTIONS)


def test_a_damaged_image_names_its_question(loaded: LoadedModel) -> None:
    def visual(_: dict) -> list[Image.Image]:
        raise OSError("image file is truncated")

    model = FitPruneLMM(loaded)
    request = requests(model, QUESTIONS[:1])[0]
    request.args = (*request.args[:2], visual, *request.args[3:])
    with pytest.raises(FitPruneError, match="task 'task', row 0 of its data: its picture cannot be decoded"):
        model.generate_until([request])


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"do_sample": True, "temperature": 0.7}])
def test_sampling_and_beams_are_refused(loaded: LoadedModel, options: dict) -> None:
    with pytest.raises(FitPruneError, match="greedy"):
        texts(FitPruneLMM(loaded), QUESTIONS, **options)


def test_the_model_survives_lmms_evals_clean(loaded: LoadedModel) -> None:
    model = FitPruneLMM(loaded)
    before = texts(model, QUESTIONS)
    model.clean()
    assert texts(model, QUESTIONS) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"reduction": 0.5}, "reduction: name the pruner"),
        ({"pruner": "fastvv", "reduction": 0.5}, "did you mean fastv"),
        ({"pruner": "fastv", "reduction": 1.5}, "between 0 and 1"),
        ({"pruner": "random", "reduction": "half"}, "between 0 and 1"),
        ({"pruner": "fastv", "reduction": 0.2, "colour": 3}, "unknown option of fastv 'colour'"),
        ({"pruner": "fitprune", "reduction": 0.5}, "needs recipe=FILE"),
        ({"recipe": "r.json", "reduction": 0.5}, "already says"),
        ({"recipe": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_arguments_that_make_no_pruner_are_refused(loaded: LoadedModel, arguments: dict, said: str) -> None:
    with pytest.raises(FitPruneError, match=said) as error:
        make_pruner(loaded, **arguments)
    assert "\n" not in str(error.value)


def test_arguments_make_pruners(loaded: LoadedModel, tmp_path: Path) -> None:
    assert make_pruner(loaded) is None
    assert make_pruner(loaded, pruner="random", reduction=0.4).name == "random"
    recipe = Recipe(drop=[4, 6, 0], visual_tokens=16)
    recipe.save(tmp_path / "r.json")
    assert make_pruner(loaded, recipe=str(tmp_path / "r.json")).recipe.drop == [4, 6, 0]


@pytest.mark.parametrize("look_ahead", [0, 1, 5])
def test_preparing_ahead_changes_no_answer(loaded: LoadedModel, look_ahead: int) -> None:
    questions = [QUESTIONS[place % 3] for place in range(9)]
    plain, eager = FitPruneLMM(loaded, batch_size=2, look_ahead=0), FitPruneLMM(loaded, batch_size=2, look_ahead=look_ahead)
    assert texts(eager, questions) == texts(plain, questions)
    assert eager.records == plain.records


def test_images_are_prepared_while_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = scripted({"Is there": "yes", "what": "red", "left": "blue"})
    model = FitPruneLMM(loaded, batch_size=1, look_ahead=2)
    second, waited = threading.Event(), []
    prepare, generate = model.prepare, loaded.model.generate

    def preparing(batch: list) -> object:
        made = prepare(batch)
        if batch[0].place != 2:  # the longest prompt, which comes first
            second.set()
        return made

    def generating(**inputs: object) -> torch.Tensor:
        waited.append(second.wait(30))
        return generate(**inputs)

    monkeypatch.setattr(model, "prepare", preparing)
    monkeypatch.setattr(loaded.model, "generate", generating)
    assert texts(model, QUESTIONS) == ["yes", "red", "blue"]
    assert waited == [True, True, True]  # without the thread the first would have waited in vain


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_an_image_that_cannot_be_decoded_is_an_error_at_its_batch(look_ahead: int) -> None:
    loaded = scripted({"Is there": "yes", "what": "red", "left": "blue"})
    model = FitPruneLMM(loaded, batch_size=1, look_ahead=look_ahead)
    asked = requests(model, QUESTIONS)

    def damaged(doc: dict) -> list:
        raise OSError("image file is truncated")

    question, options, _, place, task, split = asked[1].args
    asked[1] = SimpleNamespace(args=(question, options, damaged, place, task, split))
    before = threading.active_count()
    with pytest.raises(
        FitPruneError, match=r"task 'task', row 1 of its data: its picture cannot be decoded \(image file is truncated\)"
    ):
        model.generate_until(asked)
    assert set(model.records) == {("task", 2), ("task", 0)}  # the longer prompts, which come first, were answered
    assert threading.active_count() == before


def test_an_error_of_the_model_ends_the_preparing_too() -> None:
    loaded = scripted({"Is there": "yes"})
    model = FitPruneLMM(loaded, batch_size=1)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="StopIteration"):  # the scripted model knows no other question
        model.generate_until(requests(model, ["what color ?"] * 8))
    assert threading.active_count() == before
