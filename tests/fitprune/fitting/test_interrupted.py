"""A fit that is interrupted keeps what it has; the same call goes on from there, and runs nothing twice."""

import pytest
import torch

import fitprune.fitting.batches
from fitprune import Calibration, FitPruneError, fit
from fitprune.errors import Interrupted
from tests.support.models import build, prompt


@pytest.fixture(scope="module")
def model():
    return build("llama", 5, patch=2, seed=7, intermediate_size=256)


@pytest.fixture(scope="module")
def samples(model):
    return [prompt(model, [4, "image", 4 + seed], seed) for seed in range(6)]


@pytest.fixture
def runs(monkeypatch):
    """How many batches were measured and pruned."""
    done = {"measure": 0, "counts": 0}
    for name in done:
        function = getattr(fitprune.fitting.batches, name)

        def counted(*args, name=name, function=function):
            done[name] += 1
            return function(*args)

        monkeypatch.setattr(fitprune.fitting.batches, name, counted)
    return done


@pytest.fixture
def interrupted_fit(monkeypatch):
    """A fit in which Ctrl-C is pressed in the call after so many calls of a function that it uses; gives the exception."""

    def press(name, calls, *args, **options):
        function, seen = getattr(fitprune.fitting.batches, name), []

        def interrupted(*arguments):
            if len(seen) == calls:
                raise KeyboardInterrupt
            seen.append(1)
            return function(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(fitprune.fitting.batches, name, interrupted)
            with pytest.raises(Interrupted) as caught:
                fit(*args, progress=False, **options)
        return caught.value

    return press


def test_interrupted_while_collecting(model, samples, runs, interrupted_fit, tmp_path):
    whole = fit(model, samples, 0.5, progress=False)
    runs.update(measure=0, counts=0)
    error = interrupted_fit("measure", 4, model, samples, 0.5, keep=tmp_path)
    assert isinstance(error, KeyboardInterrupt)
    assert error.samples == 4
    assert "4 samples" in str(error)
    assert f"keep='{tmp_path}'" in str(error)
    assert runs["measure"] == 4
    resumed = fit(model, samples, 0.5, progress=False, keep=tmp_path)
    assert runs["measure"] == 6
    assert resumed.drop == whole.drop
    assert resumed.provenance["statistics"] == whole.provenance["statistics"]


def test_interrupted_while_searching(model, samples, runs, interrupted_fit, tmp_path):
    whole = fit(model, samples, 0.5, progress=False)
    needed = runs["counts"]
    runs.update(measure=0, counts=0)
    assert interrupted_fit("counts", 3, model, samples, 0.5, keep=tmp_path).samples == 6
    assert runs == {"measure": 6, "counts": 3}
    assert fit(model, samples, 0.5, progress=False, keep=tmp_path).drop == whole.drop
    assert runs == {"measure": 6, "counts": needed}


def test_without_a_folder_the_temporary_one_stays_and_is_named(model, samples, runs, interrupted_fit):
    error = interrupted_fit("measure", 2, model, samples, 0.5)
    folder = error.folder
    assert str(folder) in str(error)
    assert len(list(folder.glob("*.safetensors"))) == 4  # two batches, each with its prompt
    fit(model, samples, 0.5, progress=False, keep=folder)
    assert runs["measure"] == 6


def test_a_fit_leaves_no_temporary_folder(model, samples):
    calibration = Calibration(model, samples[:1], progress=False)
    folder = calibration._batches.store.folder
    assert folder.is_dir()
    del calibration
    assert not folder.exists()


def test_kept_statistics_are_those_of_this_model_and_these_samples(model, samples, runs, tmp_path):
    """Other weights, another configuration and other samples are measured anew, in the same folder."""
    fit(model, samples[:2], 0.5, progress=False, keep=tmp_path)
    fit(model, samples[:2], 0.5, progress=False, keep=tmp_path)
    assert runs["measure"] == 2
    other = build("llama", 5, patch=2, seed=8, intermediate_size=256)
    expected = fit(other, samples[:2], 0.5, progress=False)
    assert runs["measure"] == 4
    assert fit(other, samples[:2], 0.5, progress=False, keep=tmp_path).drop == expected.drop
    assert runs["measure"] == 6
    fit(model, samples[1:4], 0.5, progress=False, keep=tmp_path)
    assert runs["measure"] == 8


def test_a_damaged_file_is_measured_anew(model, samples, runs, tmp_path):
    whole = fit(model, samples[:3], 0.5, progress=False, keep=tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-7])
    runs.update(measure=0)
    assert fit(model, samples[:3], 0.5, progress=False, keep=tmp_path).drop == whole.drop
    assert runs["measure"] == 3


def test_one_pass_after_sequential_takes_its_statistics(model, samples, runs, tmp_path):
    fit(model, samples, 0.5, progress=False, keep=tmp_path)
    alone = fit(model, samples, 0.4, mode="one-pass", progress=False)
    runs.update(measure=0, counts=0)
    assert fit(model, samples, 0.4, mode="one-pass", progress=False, keep=tmp_path).drop == alone.drop
    assert runs == {"measure": 0, "counts": 0}


def test_a_folder_that_cannot_be_made(model, samples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FitPruneError, match="cannot keep statistics"):
        fit(model, samples, 0.5, progress=False, keep=tmp_path / "file" / "below")


def test_interrupting_leaves_the_model_as_it_was(model, samples, interrupted_fit, tmp_path):
    with torch.no_grad():
        before = model(**samples[0]).logits
    interrupted_fit("counts", 1, model, samples, 0.5, keep=tmp_path)
    with torch.no_grad():
        assert torch.equal(model(**samples[0]).logits, before)
