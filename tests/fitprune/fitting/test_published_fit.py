"""The procedure that the speed benchmark compares with is the published one: same counts as the plain-loop reference."""

import io

import pytest
import torch
from PIL import Image

from tests.reference import fitting
from tests.reference.published_fit import PublishedFit
from tests.support.models import build, prompt

pytestmark = pytest.mark.releases
SIZES = (36, 32, 72)


def workload(model, samples):
    """Samples whose PNG holds their place, so that the procedure really reads it."""

    def png(place):
        file = io.BytesIO()
        Image.new("RGB", (4, 4), (place, 0, 0)).save(file, "PNG")
        return file.getvalue()

    reads = []

    def encode(image, question):
        reads.append(image.getpixel((0, 0))[0])
        return samples[reads[-1]]

    return [(png(place), "?") for place in range(len(samples))], encode, reads


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("kind", ["llama", "llama-gqa"])
def test_against_the_plain_loops(kind, loops):
    model = build(kind, 4, seed=3)
    samples = [prompt(model, [3, "image", 5], seed) for seed in range(3)]
    images, encode, _ = workload(model, samples)
    last, best = PublishedFit(model, images, encode, loops=loops, read_again=False).run(0.4)
    assert (last, best) == fitting.published_fit(model, samples, *SIZES, 0.4)


def test_images_are_read_again_in_every_layer_or_once():
    model = build("llama", 4, seed=3)
    samples = [prompt(model, [3, "image", 5], seed) for seed in range(2)]
    images, encode, reads = workload(model, samples)
    procedure = PublishedFit(model, images, encode, read_again=True)
    procedure.visual_tokens = 36
    with torch.no_grad():
        masses = procedure.statistics()
        assert reads == [0, 1]
        procedure.scheme(0.01, masses, 0.9)
    assert reads == [0, 1] * 5
    images, encode, reads = workload(model, samples)
    PublishedFit(model, images, encode, read_again=False).run(0.4)
    assert reads == [0, 1]
