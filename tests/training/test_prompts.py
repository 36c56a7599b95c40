"""The prompts of training are those of lmms-eval's tasks, and the tokenizer carries them."""

from dataclasses import replace
from random import Random

import pytest
from lmms_eval.tasks.gqa.utils import gqa_doc_to_text
from lmms_eval.tasks.mme.utils import mme_doc_to_text
from lmms_eval.tasks.pope.utils import pope_doc_to_text
from lmms_eval.tasks.scienceqa.utils import sqa_doc_to_target, sqa_doc_to_text
from lmms_eval.tasks.textvqa.utils import textvqa_doc_to_text
from lmms_eval.tasks.vqav2.utils import vqav2_doc_to_text

from harness.scenes import world
from harness.scenes.mini.benchmarks import YES_NO_ENDING
from harness.scenes.prompts import chat, prompt
from harness.scenes.questions import HINT, KINDS, Question
from harness.tasks.specs import find_suite
from training import tokenizer as tokenizers
from training.batches import READ, SLOT_LENGTHS, Batcher
from training.families import FAMILIES

DOC_TO_TEXT = {
    "gqa": gqa_doc_to_text,
    "vqav2_val": vqav2_doc_to_text,
    "textvqa_val": textvqa_doc_to_text,
    "pope": pope_doc_to_text,
    "pope_adv": pope_doc_to_text,
    "pope_pop": pope_doc_to_text,
    "pope_random": pope_doc_to_text,
    "mme": mme_doc_to_text,
}


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    found = [ask(world.sample(seed), Random(seed)) for seed in range(60) for ask in KINDS.values()]
    return [question for question in found if question is not None]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.build()


@pytest.fixture(scope="module")
def task_kwargs():
    """The prompts of each task's own configuration, for models that it does not name."""
    from pathlib import Path

    import lmms_eval.tasks
    from lmms_eval.tasks import TaskManager

    root = Path(lmms_eval.tasks.__file__).parent
    folders = [str(root / folder) for folder in ("gqa", "vqav2", "textvqa", "pope", "mme", "scienceqa")]
    manager = TaskManager(include_path=folders, include_defaults=False)
    return {task: manager._get_config(task)["lmms_eval_specific_kwargs"]["default"] for task in (*DOC_TO_TEXT, "scienceqa_img")}


@pytest.mark.parametrize("task", DOC_TO_TEXT)
def test_prompts_are_those_of_the_tasks(task, questions, task_kwargs):
    plain = [question for question in questions if not question.choices]
    assert {question.kind for question in plain} == set(KINDS) - {"multiple choice"}
    for question in plain:
        ending = YES_NO_ENDING if task == "mme" else ""
        made = DOC_TO_TEXT[task]({"question": question.text + ending, "ocr_tokens": []}, task_kwargs[task])
        assert made == prompt(question)


def test_prompts_with_what_was_read_are_those_of_the_suite(questions):
    """The suite's own settings for the task, and words of the scene in the order of the mini data."""
    kwargs = find_suite("textvqa-ocr").options["lmms_eval_specific_kwargs"]["default"]
    for question in (question for question in questions if question.kind in ("word", "number")):
        made = textvqa_doc_to_text({"question": question.text, "ocr_tokens": ["pen", "41"]}, kwargs)
        assert made == prompt(replace(question, read=("pen", "41")))
        assert textvqa_doc_to_text({"question": question.text}, kwargs | {"ocr": False}) == prompt(question)


def test_multiple_choice_is_as_in_scienceqa(questions, task_kwargs):
    chosen = [question for question in questions if question.choices]
    assert {question.hint for question in chosen} == {"", HINT}
    for question in chosen:
        doc = {
            "hint": question.hint,
            "question": question.text,
            "choices": list(question.choices),
            "answer": "ABCDE".index(question.answer),
        }
        assert sqa_doc_to_text(doc, task_kwargs["scienceqa_img"]) == prompt(question)
        assert sqa_doc_to_target(doc) == question.answer


def test_the_chat_template_gives_the_same_text(questions):
    processor = FAMILIES["llava"].make_processor()
    for question in questions[:40]:
        content = [{"type": "image"}, {"type": "text", "text": prompt(question)}]
        made = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        assert made == chat(prompt(question))


def test_answers_come_out_as_plain_words(questions, tokenizer):
    for question in questions:
        ids = tokenizer(" " + question.answer + tokenizers.EOS, add_special_tokens=False)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == question.answer


def test_every_prompt_is_in_the_vocabulary(questions, tokenizer):
    for question in questions:
        ids = tokenizer(chat(prompt(question)))["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 1


def test_words_of_pictures_are_spelled(tokenizer):
    for word in world.WORDS:
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == len(word)


def test_questions_fit_their_slots(questions, tokenizer):
    batcher = Batcher(FAMILIES["llava"], tokenizer)
    longest = dict.fromkeys(KINDS, 0)
    for question in questions:
        before, answer = batcher.question_ids(question)
        together = tokenizer(chat(prompt(question)) + " " + question.answer + tokenizers.EOS, add_special_tokens=False)[
            "input_ids"
        ]
        assert [*batcher.prefix, *before, *answer] == together
        longest[question.kind] = max(longest[question.kind], len(before) + len(answer) - 1)
    assert all(longest[kind] <= SLOT_LENGTHS[kind] for kind in KINDS)


def test_kinds_that_are_read_say_what_stands_in_the_scene_where_there_is_room(tokenizer):
    """Of many words and long ones there is too little room for some, and a question that stands in for another is as it was."""
    batcher = Batcher(FAMILIES["llava"], tokenizer, ("word, read", "exist", "number, read", "word"))
    plain = Batcher(FAMILIES["llava"], tokenizer, [kind.removesuffix(READ) for kind in batcher.kinds])
    plain.kinds = [kind.removesuffix(READ) for kind in batcher.kinds]
    said, longest, crowded = 0, 0, 0
    for seed in range(200):
        scene = world.sample(seed)
        words = tuple(thing.text for thing in scene.things if thing.text)
        for kind, question, bare in zip(batcher.kinds, batcher.asked(scene), plain.asked(scene), strict=True):
            assert replace(question, read=()) == bare
            length = sum(map(len, batcher.question_ids(replace(bare, read=words)))) - 1
            fits = kind.removesuffix(READ) == bare.kind and length <= SLOT_LENGTHS[kind]
            assert question.read == (words if kind.endswith(READ) and fits else ())
            said += bool(question.read)
            longest = max(longest, length * bool(question.read))
            crowded += kind.removesuffix(READ) == bare.kind and kind.endswith(READ) and not question.read
    assert longest == SLOT_LENGTHS["word, read"]
    assert said > 300 > 30 > crowded > 0


def test_unknown_text_is_spelled_or_marked(tokenizer):
    ids = tokenizer("What is a giraffe's favourite soup? é", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id in ids
    assert "giraffe" in tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")
