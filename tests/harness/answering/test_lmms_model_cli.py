"""`python -m lmms_eval --model fitprune` gives the same score as `evaluate_cell`."""

import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from filelock import FileLock

from fitprune import FitPrune, Recipe
from fitprune.errors import FitPruneError
from harness.models.loading import load_model
from harness.tasks.build import task_folder, tasks_reading
from harness.tasks.isolation import lmms_eval_evaluator
from tests.support.evaluating import evaluate_cell
from tests.support.tiny_llava import picture, save_tiny, write
from tests.support.warm import python

pytestmark = pytest.mark.releases
ROOT = Path(__file__).parents[3]
QUESTIONS = [f"what color {n} ?" for n in range(9)]


def write_gqa(folder: Path, targets: list[str]) -> None:
    rows = [
        {"id": f"q{n}", "imageId": f"i{n // 3}", "question": question, "answer": target}
        for n, (question, target) in enumerate(zip(QUESTIONS, targets, strict=True))
    ]
    write(folder, "gqa/testdev_balanced_instructions/testdev", rows)
    write(folder, "gqa/testdev_balanced_images/testdev", [{"id": f"i{n}", "image": picture(n)} for n in range(3)])


def register(folder: Path) -> Path:
    """A distribution that registers the model, for runs from a source tree."""
    info = folder / "registered-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: registered\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[lmms_eval.models]\nfitprune = harness.answering.manifest:manifest\n")
    return folder


# Of two processes one has five questions, and the other four and a fifth that is not counted.
RANKS = ["-m", "torch.distributed.run", "--standalone", "--local_addr", "127.0.0.1", "--nproc_per_node", "2"]
# Without --multi_gpu, or with --cpu, accelerate starts one process, whatever their number. It needs no GPU for it.
LAUNCH = ["-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_ip", "127.0.0.1", "--main_process_port", "0"]


@pytest.mark.parametrize(
    "ranks",
    [
        pytest.param([], marks=pytest.mark.releases_short, id="alone"),
        pytest.param(RANKS, marks=pytest.mark.exhaustive, id="two"),
        pytest.param(LAUNCH, marks=pytest.mark.exhaustive, id="two of accelerate"),
    ],
)
def test_the_command_line_gives_the_same_score(tmp_path: Path, ranks: list[str]) -> None:
    """On a task whose right answers to a third of the questions are what the pruned model says."""
    model, data, output = save_tiny(tmp_path / "model"), tmp_path / "data", tmp_path / "out"
    recipe = Recipe(drop=[8, 4, 0], visual_tokens=16)
    recipe.save(tmp_path / "recipe.json")
    loaded = load_model(str(model), device="cpu")
    write_gqa(data, ["?"] * 9)
    said = [answer.answer for answer in evaluate_cell(loaded, FitPrune(recipe), "gqa", data=str(data)).answers]
    write_gqa(data, [text if place % 3 == 0 else "?" for place, text in enumerate(said)])
    cell = evaluate_cell(loaded, FitPrune(recipe), "gqa", data=str(data))
    dense = evaluate_cell(loaded, None, "gqa", data=str(data))
    assert 0 < cell.score < 100
    assert cell.score != dense.score
    command = [
        *([sys.executable, *ranks] if ranks else [python()]),
        "-m",
        "lmms_eval",
        "--model",
        "fitprune",
        "--tasks",
        "gqa",
        "--batch_size",
        "2",
    ]
    command += ["--model_args", f"pretrained={model},recipe={tmp_path / 'recipe.json'},data={data},device=cpu"]
    path = os.pathsep.join([str(register(tmp_path / "site")), str(ROOT)])
    run = subprocess.run(
        [*command, "--output_path", str(output)],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = list(output.rglob("*_results.json"))
    assert found, run.stdout[-2000:] + run.stderr[-2000:]
    aggregate = json.loads(found[0].read_text())["results"]["gqa"]["exact_match,none"]
    assert 100 * aggregate == pytest.approx(cell.score)
    assert len(found) == 1


def test_named_tasks_read_the_data_only_inside_the_context(tmp_path: Path) -> None:
    lmms_eval_evaluator()
    import lmms_eval.tasks
    from lmms_eval.api.task import ConfigurableTask

    write_gqa(tmp_path, ["red"] * 9)
    folder = Path(lmms_eval.tasks.__file__).parent / "gqa"
    manager = lmms_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    with tasks_reading(str(tmp_path), limit=4):
        task = manager.load_task_or_group(["gqa"])["gqa"]
        assert len(task.eval_docs) == 4
    assert lmms_eval.tasks.ConfigurableTask is ConfigurableTask
    with pytest.raises(ZeroDivisionError), tasks_reading(str(tmp_path)):
        raise ZeroDivisionError
    assert lmms_eval.tasks.ConfigurableTask is ConfigurableTask


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("data=mini", "needs pretrained=NAME"),
        ("pretrained={model},data={folder}/nowhere", "does not exist"),
        ("pretrained={model},batch_size=auto", "batch_size must be a whole number"),
        ("pretrained={model},data={folder},limit=some", "limit must be a whole number"),
        ("pretrained={model},data={folder},limit=0", "limit must be a whole number of at least 1, not '0'"),
        ("pretrained={model},data={folder},limit=-3", "limit must be a whole number of at least 1, not '-3(.0)?'"),
        ("pretrained={model},data={folder},limit=0.1", "limit must be a whole number of at least 1, not '0.1'"),
        ("pretrained={model},data={folder},limit=inf", "limit must be a whole number of at least 1, not 'inf'"),
        ("pretrained={model},data={folder},limit=True", "limit must be a whole number of at least 1, not 'True'"),
        ("pretrained={model},max_batch_size=8", "max_batch_size has no effect"),
        ("pretrained={model},temperature=1", "temperature: name the pruner it is for"),
        ("pretrained={model},pruner=random,reduction=0.5,keep=3", "option of random 'keep'"),
        ("pretrained=lava-tiny", "did you mean llava-tiny"),
    ],
)
def test_wrong_model_args_are_refused(tmp_path: Path, arguments: str, said: str) -> None:
    lmms_eval_evaluator()
    import lmms_eval.tasks
    from lmms_eval.api.task import ConfigurableTask

    from harness.answering.lmms_model import FitPruneLMM

    model = save_tiny(tmp_path / "model")
    with pytest.raises(FitPruneError, match=said):
        FitPruneLMM.create_from_arg_string(arguments.format(model=model, folder=tmp_path))
    assert lmms_eval.tasks.ConfigurableTask is ConfigurableTask


@pytest.fixture(autouse=True, scope="module")
def locks_as_they_were():
    """lmms-eval's command line makes every lock of a file one that its process may take again."""
    made = type(FileLock).__call__
    yield
    type(FileLock).__call__ = made


@pytest.fixture(scope="module")
def tasks_of_lmms_eval():
    """Its index of one folder: that of all 1 700 tasks takes seconds to read."""
    lmms_eval_evaluator()
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(task_folder("gqa")), include_defaults=False).task_index


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ("limit=0", [], "limit must be a whole number of at least 1, not '0'"),
        ("data=nowhere", [], "data folder 'nowhere' does not exist; --data takes mini, hub or a folder of *"),
        ("data=.", [], "no data for task 'gqa': * does not exist; take --data hub, or --data DIR with it"),
        ("data=d", ["--gen_kwargs", "repetition_penalty=3"], "task 'gqa': the generation option repetition_penalty=3 is not *"),
        ("data=d,recipe=none.json", [], "cannot read the recipe none.json*"),
    ],
)
def test_a_refusal_ends_the_command_line_in_one_line_and_status_2(
    tmp_path, monkeypatch, capsys, tasks_of_lmms_eval, arguments, options, said
):
    from lmms_eval.cli import dispatch
    from lmms_eval.tasks import TaskManager
    from loguru import logger

    monkeypatch.setattr(TaskManager, "initialize_tasks", lambda *arguments, **options: tasks_of_lmms_eval)

    save_tiny(tmp_path / "m")
    write_gqa(tmp_path / "d", ["red"] * 9)
    monkeypatch.chdir(tmp_path)
    model = ["--model", "fitprune", "--model_args", f"pretrained=m,device=cpu,{arguments}"]
    monkeypatch.setattr(sys, "argv", ["lmms-eval", *model, "--tasks", "gqa", "--batch_size", "4", *options])
    try:
        with pytest.raises(SystemExit) as ended:
            dispatch.main()
    finally:
        logger.remove()
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert fnmatch(captured.err.splitlines()[-1], f"FitPruneError: {said}"), captured.err[-500:]
    assert "Traceback" not in captured.err + captured.out


def test_the_data_are_let_go_with_the_model(tmp_path: Path) -> None:
    lmms_eval_evaluator()
    import lmms_eval.tasks
    from lmms_eval.api.task import ConfigurableTask

    from harness.answering.lmms_model import FitPruneLMM

    model = save_tiny(tmp_path / "model")
    for let_go in (lambda lm: lm.clean(), lambda lm: None):
        lm = FitPruneLMM.create_from_arg_string(f"pretrained={model},data={tmp_path}", {"batch_size": 4, "device": "cpu"})
        assert lm.batch_size == 4
        assert lmms_eval.tasks.ConfigurableTask is not ConfigurableTask
        let_go(lm)
        del lm
        assert lmms_eval.tasks.ConfigurableTask is ConfigurableTask
