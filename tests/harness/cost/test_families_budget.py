"""Every method at an asked reduction, through the harness, on the families beside LLaVA-1.5: what is asked is measured."""

import io
from functools import partial

import pytest
import torch

from harness.bench.bench import Bench
from harness.cells import Cell, CellSettings
from harness.cost.tally import Tally, batch_cost
from harness.models.prompting import encode
from harness.results.once import RunFolder
from harness.tasks.calibration import calibration_batches
from harness.tasks.typical import typical_tokens
from tests.support import tiny_llava
from tests.support.families import FAMILIES, image, save

pytestmark = pytest.mark.releases
SIZES = [(60, 40), (80, 80), (40, 88), (22, 80), (140, 60), (100, 54)]


def png(picture):
    """An image as parquet files hold it."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request, tmp_path_factory):
    """A model of many layers on disk, and calibration images of many sizes."""
    folder = tmp_path_factory.mktemp(request.param)
    save(request.param, folder / "m", 6, intermediate_size=256)
    (folder / "d").mkdir()
    samples = [{"image": png(image(*SIZES[n % 6], seed=n)), "question": f"w{n % 10} w{n % 7} w{n % 3}"} for n in range(36)]
    tiny_llava.write(folder / "d", "calibration", samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.pruners.calibrated.calibration_batches", partial(calibration_batches, samples=36))
        yield Bench(CellSettings(data=str(folder / "d"), reductions=(0.5,)), RunFolder(folder / "run")), str(folder / "m")


def test_a_batch_is_encoded_sample_by_sample(bench):
    """One image, two and none; LLaVA-OneVision's one newline a picture shows that two got no tiles."""
    bench, name = bench
    loaded = bench.shelf.model(name)
    images = [[image(60, 40)], [image(60, 40), image(22, 80)], []]
    questions = ["w1 w2", "w3", "w4 w5 w6"]
    together = encode(loaded, questions, images)
    totals = (together["input_ids"] == loaded.model.config.image_token_id).sum(1).tolist()
    for question, own, total in zip(questions, images, totals, strict=True):
        alone = encode(loaded, [question], [own])
        assert int((alone["input_ids"] == loaded.model.config.image_token_id).sum()) == total
    assert totals[2] == 0 < totals[0]
    if loaded.model.config.model_type == "llava_onevision":
        assert totals[1] == 2 * (36 + 1)
    with torch.no_grad():
        assert torch.isfinite(loaded.model(**together).logits).all()


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("method", ["fastv", "random", "fitprune"])
def test_what_is_asked_is_saved(bench, method):
    bench, name = bench
    cell = Cell(name, method, 0.5, "gqa")
    pruner, loaded = bench.resolver.pruners.of(cell, bench.shelf.facts(name)), bench.shelf.model(name)
    tally, visual = Tally(loaded.model.config), []
    for batch in calibration_batches(loaded, bench.settings.data, 32, batch_size=1):
        with torch.no_grad(), pruner(loaded.model) as trace:
            loaded.model(**batch)
        tally.add(cost := batch_cost(loaded.model.config, batch, trace, [1] * len(batch["input_ids"])))
        visual += cost.visual
    assert len(set(visual)) >= 2 or "gemma3" in name
    assert typical_tokens(loaded, bench.settings.data) >= sum(visual) / len(visual) - 1
    # Of nine tokens, one is a larger share.
    assert tally.reduction() == pytest.approx(0.5, abs=0.03 if max(visual) > 9 else 0.05)
