"""The training command: goes on where it was cut off, says in a line what is wrong, and keeps a weak model out."""

import json
from dataclasses import replace

import pytest
import torch

from training import losses, train, trainer
from training.plan import Lesson, Plan

MICRO = Plan(
    tower_steps=3,
    tower_batch=2,
    steps=6,
    batch=2,
    width=32,
    layers=4,
    depths=(2, 3),
    checkpoint_every=2,
    curriculum=2,
    jitter=0.5,
    inserted=(2, 2, 4),
    deep_from=4,
    lessons=(Lesson(0, 4, False, False), Lesson(2, 2, True, True, True, True, ("exist", "word y/n", "multiple choice"))),
)


class CutOff(Exception):
    """Stands for a power failure."""


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / trainer.CHECKPOINT, weights_only=True)["model"]


@pytest.fixture(autouse=True, scope="module")
def few_watched_scenes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "WATCHED", losses.WATCHED[:2])
        yield


@pytest.fixture(scope="module")
def whole(few_watched_scenes, tmp_path_factory):
    """The folder of a run that nothing cut off."""
    folder = tmp_path_factory.mktemp("whole")
    trainer.run(MICRO, folder, processes=1)
    return folder


@pytest.mark.parametrize("checkpoints", [1, 3, 4, 5])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(checkpoints, whole, tmp_path, monkeypatch):
    save, saved = trainer.Trainer.checkpoint, []

    def save_then_fail(self, *arguments):
        save(self, *arguments)
        saved.append(arguments)
        if len(saved) == checkpoints:
            raise CutOff

    monkeypatch.setattr(trainer.Trainer, "checkpoint", save_then_fail)
    with pytest.raises(CutOff):
        trainer.run(MICRO, tmp_path / "cut", processes=1)
    monkeypatch.setattr(trainer.Trainer, "checkpoint", save)
    trainer.run(MICRO, tmp_path / "cut", processes=1)
    uncut, cut = weights(whole), weights(tmp_path / "cut")
    assert uncut.keys() == cut.keys()
    assert all(torch.equal(uncut[name], cut[name]) for name in uncut)
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    stages = [("tower", 2), ("tower", 3), ("decoder", 2), ("decoder", 4), ("deeper decoder", 6)]
    assert [(line["stage"], line["step"]) for line in log] == stages


def test_training_changes_the_weights_and_the_seed_decides_them(whole, tmp_path):
    trainer.run(replace(MICRO, seed=1), tmp_path, processes=1)
    one, other = weights(whole), weights(tmp_path)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_another_plan_does_not_go_on_from_these_checkpoints(whole):
    before = (whole / trainer.CHECKPOINT).read_bytes()
    with pytest.raises(FileExistsError, match="another plan"):
        trainer.run(replace(MICRO, steps=8), whole, processes=1)
    assert (whole / trainer.CHECKPOINT).read_bytes() == before


def test_a_damaged_checkpoint_is_one_line_and_status_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(train.PLANS, "llava-tiny", MICRO)
    (tmp_path / trainer.CHECKPOINT).write_bytes(b"cut short")
    assert train.main(["llava-tiny", "--work", str(tmp_path), "--processes", "1"]) == 2
    error = capsys.readouterr().err
    assert "damaged" in error
    assert error.count("\n") == 1


def test_half_precision_goes_through_every_loss(tmp_path, monkeypatch):
    """As on CUDA, where training runs in bfloat16."""
    monkeypatch.setattr(losses.Losses, "precision", lambda self: torch.autocast("cpu", torch.bfloat16))
    run = losses.Losses(MICRO, 0, 1, torch.device("cpu"))
    for loss, _ in (run.tower_loss(0), run.decoder_loss(3)):
        loss.backward()
        assert torch.isfinite(loss)


@pytest.mark.exhaustive
def test_a_model_below_the_bars_is_not_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(train.PLANS, "llava-tiny", MICRO)
    arguments = ["llava-tiny", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--processes", "1"]
    assert train.main([*arguments, "--scenes", "2"]) == 1
    error = capsys.readouterr().err
    assert "llava-tiny is not good enough" in error
    assert "overall" in error
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "work" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["llava-tny"], "unknown embedded model 'llava-tny'; did you mean llava-tiny"),
        (["xyz"], "unknown embedded model 'xyz'; known: llava-deep-tiny, llava-deep-tiny-b"),
        (["llava-tiny", "--steps", "0"], "must be at least 1"),
        (["llava-tiny", "--processes", "3"], "divide 16"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(arguments, said, capsys):
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_work_folder_that_cannot_be_made_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train.main(["llava-tiny", "--work", str(tmp_path / "file" / "work")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "file/work" in error
    assert error.count("\n") == 1
