"""lmms-eval's own caches and options, as its command line hands them on: known content, or refused."""

import functools
import shutil
from pathlib import Path

import pytest

from fitprune import FitPruneError, Recipe
from harness.tasks.isolation import lmms_eval_evaluator
from tests.support.tiny_llava import save_tiny, write_suites


@pytest.fixture
def place(tmp_path, monkeypatch):
    save_tiny(tmp_path / "m")
    write_suites(tmp_path / "d")
    Recipe(drop=[4, 6, 0], visual_tokens=16).save(tmp_path / "r.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """The batches that models are asked."""
    lmms_eval_evaluator()
    from harness.answering import lmms_model

    plain, batches = lmms_model.generate, []
    monkeypatch.setattr(lmms_model, "generate", lambda *given: batches.append(given[1]) or plain(*given))
    return batches


@functools.cache
def manager():
    """lmms-eval's own reads the files of every task, which takes seconds."""
    import lmms_eval.tasks

    folder = Path(lmms_eval.tasks.__file__).parent / "gqa"
    return lmms_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)


def run(**options):
    evaluator = lmms_eval_evaluator()
    given = {"model": "fitprune", "model_args": "pretrained=m,recipe=r.json,data=d", "tasks": ["gqa"], "use_cache": "cache"}
    given |= {"limit": 8, "bootstrap_iters": 0, "batch_size": 4, "task_manager": manager()}
    return evaluator.simple_evaluate(**given | options)


def test_answers_from_the_response_cache_are_this_contents(place, asked):
    run()
    assert len(asked) == 2
    run()
    assert len(asked) == 2
    Recipe(drop=[6, 6, 0], visual_tokens=16).save(place / "r.json")
    run()
    assert len(asked) == 4
    shutil.rmtree(place / "d" / "gqa")
    write_suites(place / "new")
    path = next((place / "new").rglob("testdev_balanced_instructions/*.parquet"))
    path.write_bytes(path.read_bytes())
    shutil.copytree(place / "new" / "gqa", place / "d" / "gqa")
    run()
    assert len(asked) == 4  # the same data, written again
    weights = bytearray((place / "m" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (place / "m" / "model.safetensors").write_bytes(weights)
    run()
    assert len(asked) == 6


def test_prompts_kept_by_the_tasks_name_are_refused(place):
    with pytest.raises(FitPruneError, match=r"^lmms-eval's --cache_requests finds prompts by the task's name"):
        run(cache_requests=True, use_cache=None)


@pytest.mark.parametrize(
    "option", ["repetition_penalty=50.0", "min_new_tokens=6", "no_repeat_ngram_size=1", "max_gen_toks=1", "stop=word"]
)
def test_generation_options_without_effect_are_refused_by_name(place, asked, option):
    said = rf"^task 'gqa': the generation option {option.split('=')[0]}=.* is not supported; max_new_tokens and until are$"
    with pytest.raises(FitPruneError, match=said):
        run(gen_kwargs=option, use_cache=None)
    assert not asked


@pytest.mark.parametrize("given", ["0", "-3", "2.5", "many", "True"])
def test_a_length_that_is_no_whole_number_is_refused_by_name(place, asked, given):
    said = rf"^task 'gqa': max_new_tokens must be a whole number of at least 1, not '{given}(.0)?'$"
    with pytest.raises(FitPruneError, match=said):
        run(gen_kwargs=f"max_new_tokens={given}", use_cache=None)
    assert not asked


def test_neutral_generation_options_pass(place, asked):
    run(gen_kwargs="repetition_penalty=1.0,min_new_tokens=0,num_return_sequences=1,top_p=0.9", use_cache=None)
    assert asked
    assert isinstance(place, Path)
