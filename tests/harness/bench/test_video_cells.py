"""Cells of a suite about videos: what is saved, counted, fitted and kept; and what cannot run, for the true reason."""

from functools import partial

import pytest
import torch

from fitprune import FitPruneError, Recipe, UnsupportedModel
from fitprune.__main__ import main
from fitprune.errors import SeesNoVideos
from harness.answering.evaluate import sample_inputs
from harness.bench.bench import Bench
from harness.bench.planning import Planner
from harness.cells import DENSE, Cell, CellSettings
from harness.cost.flops import prompt_tokens
from harness.cost.tally import Tally, batch_cost
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.tasks.calibration import calibration_batches, check_samples
from tests.support.families import save

pytest.importorskip("av")
pytestmark = pytest.mark.releases
LIMIT = 6
SUITE = "mini-video"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("llava_onevision", "qwen2_5_vl"):
        save(family, folder / family, layers=6, intermediate_size=256)
    return folder


@pytest.fixture
def made(models, tmp_path, monkeypatch):
    """Benches of the settings that are given, all on one results folder; calibrated on few samples."""
    monkeypatch.setattr("harness.pruners.calibrated.calibration_batches", partial(calibration_batches, samples=4))

    def make(**settings):
        settings = CellSettings(limit=LIMIT, reductions=(0.5,), **settings)
        return Bench(settings, RunFolder(tmp_path / "run"), Store(str(tmp_path / "results")), "cpu")

    make.results = tmp_path / "results"
    make.cell = lambda pruner, family="llava_onevision", suite=SUITE: Cell(
        str(models / family), pruner, None if pruner == DENSE else 0.5, suite
    )
    return make


PRUNERS = ["fastv", "uniform", "divprune", "evs", "vidcom2", "fitprune", "random+fitprune"]


@pytest.mark.parametrize(
    ("family", "pruner"),
    [
        ("llava_onevision", "random"),
        pytest.param("qwen2_5_vl", "random", marks=pytest.mark.exhaustive),
        *(
            pytest.param(family, pruner, marks=pytest.mark.exhaustive)
            for family in ("llava_onevision", "qwen2_5_vl")
            for pruner in PRUNERS
        ),
    ],
)
def test_what_is_asked_is_saved_and_counted(made, family, pruner):
    bench = made()
    cell = made.cell(pruner, family)
    found = bench.run(cell)
    loaded = bench.shelf.model(cell.model)
    resolved = bench.resolver.resolve(cell)
    tally = Tally(loaded.config)
    tokens = []
    for inputs in sample_inputs(loaded, SUITE, limit=LIMIT):
        with torch.no_grad(), resolved.pruner(loaded.model) as trace:
            loaded.model.generate(**inputs, max_new_tokens=1, do_sample=False)
        tally.add(batch_cost(loaded.config, inputs, trace, [16] * len(inputs["input_ids"])))
        tokens += prompt_tokens(loaded.config, inputs)[1].tolist()
    assert found.result.reduction == pytest.approx(0.5, abs=0.03)
    assert found.result.reduction == pytest.approx(tally.reduction())
    assert found.result.flops == pytest.approx(tally.flops())
    assert found.result.tokens["visual_tokens"] == sum(tokens) / len(tokens)
    assert (found.result.generation["frames"], found.result.n) == (8, LIMIT)
    assert found.result.dense_flops > found.result.flops
    assert found.result.latency_ms["suite"] == SUITE


def test_a_budget_is_solved_for_the_frames_that_are_shown(made):
    known = made().pruners.calibrated
    facts = made().shelf.facts(made.cell("random").model)
    assert known.typical_tokens(facts, SUITE, 8) == 8 * 9 + 1
    assert known.typical_tokens(facts, SUITE, 4) == 4 * 9 + 1
    few, many = (made(frames=frames).resolver.resolve(made.cell("divprune")) for frames in (4, 8))
    assert few.pruner.params() != many.pruner.params()
    assert few.key != many.key
    assert made().resolver.resolve(made.cell("divprune")).key == many.key
    assert few.dense.key != many.dense.key


def test_pictures_are_solved_as_before(made):
    """Their keys know nothing of frames, and their calibration is the pictures'."""
    plain, other = (made(frames=frames).resolver.resolve(made.cell("random", suite="gqa")) for frames in (None, 4))
    assert plain.key == other.key
    assert "frames" not in plain.identity["generation"]
    bench = made(frames=4)
    videos, pictures = (bench.resolver.resolve(made.cell("random", suite=suite)) for suite in (SUITE, "gqa"))
    assert videos.pruner.params() != pictures.pruner.params()


@pytest.mark.exhaustive
def test_fitprune_is_fitted_on_videos_shown_by_as_many_frames(made):
    names = []
    for frames in (4, 8):
        bench = made(frames=frames)
        recipe = bench.resolver.resolve(made.cell("fitprune")).pruner.recipe
        assert recipe.provenance["data"]["frames"] == frames
        assert recipe.visual_tokens == 9 * frames  # newlines stay
        (path,) = (made.results / "recipes").glob(f"*-{frames}-frames.json")
        assert Recipe.load(path).drop == recipe.drop
        names.append(path.name)
    assert len(set(names)) == 2
    pictures = made().resolver.resolve(made.cell("fitprune", suite="gqa")).pruner.recipe
    assert "frames" not in pictures.provenance["data"]


@pytest.mark.parametrize("pruner", [DENSE, "random", "evs", "fitprune"])
def test_a_model_that_sees_no_videos_is_the_reason(made, pruner):
    cell = Cell("llava-tiny", pruner, None if pruner == DENSE else 0.5, SUITE)
    said = (
        r"^suite 'mini-video' shows videos, and llava-tiny is shown images alone; models with videos: llava_onevision, [^\n]*$"
    )
    with pytest.raises(SeesNoVideos, match=said):
        made().resolver.resolve(cell)
    (planned,) = Planner(made().settings, Store(str(made.results)), "cpu").plan([cell])
    assert (planned.state, "is shown images alone" in planned.reason) == ("cannot", True)


@pytest.mark.parametrize(
    ("pruner", "suite", "said"),
    [
        ("visionzip", SUITE, r"^visionzip works in the vision tower, where [^\n]*; suite 'mini-video' shows videos$"),
        ("visionzip+fitprune", SUITE, r"^visionzip works in the vision tower, where [^\n]*; suite 'mini-video' shows videos$"),
        ("downsample", SUITE, r"^downsample works in the vision tower, where [^\n]*; suite 'mini-video' shows videos$"),
        ("evs", "gqa", r"^evs prunes videos, by what changes from frame to frame; suite 'gqa' shows pictures$"),
    ],
)
def test_a_method_for_the_other_kind_is_the_reason(made, pruner, suite, said):
    with pytest.raises(UnsupportedModel, match=said):
        made().resolver.resolve(made.cell(pruner, suite=suite))


def test_a_plan_counts_the_frames(made):
    planned = {}
    for frames in (2, 8):
        bench = made(frames=frames)
        cells = [made.cell(pruner) for pruner in (DENSE, "random", "evs")]
        plans = Planner(bench.settings, Store(str(made.results)), "cpu").plan(cells)
        assert {plan.state for plan in plans} == {"to run"}
        planned[frames] = [plan.flops for plan in plans]
        assert planned[frames][0] > planned[frames][1] > 0
    assert all(few < many for few, many in zip(planned[2], planned[8], strict=True))


@pytest.mark.exhaustive
def test_an_earlier_result_with_other_frames_says_nothing_of_the_flops(made):
    cell = made.cell(DENSE)
    with made(frames=8).measuring(cell) as found:
        made(frames=8).results.write(found.result, found.answers, None)
    (same,) = Planner(made(frames=8).settings, Store(str(made.results)), "cpu").plan([cell])
    (other,) = Planner(made(frames=2).settings, Store(str(made.results)), "cpu").plan([cell])
    assert (same.state, other.state) == ("cached", "to run")
    assert other.prefill_only
    assert other.flops < found.result.flops * LIMIT


def test_calibration_videos_that_are_missing_are_named(made, tmp_path):
    with pytest.raises(
        FitPruneError, match=r"calibration_video\.parquet does not exist; it needs the columns video and question$"
    ):
        check_samples(str(tmp_path), videos=True)


@pytest.mark.exhaustive
def test_the_command_fits_on_videos_too(models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["--reduction", "0.5", "--frames", "3", "--samples", "4", "-o", "recipe.json"]
    assert main(["fit", "--model", str(models / "llava_onevision"), *asked]) == 0
    recipe = Recipe.load("recipe.json")
    assert recipe.visual_tokens == 27
    assert recipe.provenance["data"].items() >= {"id": "mini", "frames": 3, "samples": 4}.items()
    assert main(["fit", "--model", "llava-tiny", *asked]) == 2
    assert capsys.readouterr().err.startswith("error: --frames shows videos, and llava-tiny is shown images alone; models with")
    assert main(["fit", "--model", str(models / "llava_onevision"), "--data", str(tmp_path), *asked]) == 2
    assert "calibration_video.parquet does not exist; it needs the columns video and question" in capsys.readouterr().err
