"""What a fit costs the host: waits for the device and passes, counted, and against the published procedure."""

import pytest

from fitprune.search import drop_counts
from tests.benchmarks.bench_fit import Workload
from tests.support.models import batch, build, prompt
from tests.support.waits import Waits, of_fit

SAMPLES, BATCH, REDUCTION = 16, 8, 0.4
BATCHES = SAMPLES // BATCH
# Of a batch, once: embedding it. Of a fit: its mean number of text tokens.
PER_BATCH, PER_FIT = 4, 1


@pytest.fixture(scope="module", params=[8, pytest.param(32, marks=pytest.mark.exhaustive)], ids="{} layers".format)
def work(request):
    """One of 36 visual tokens."""
    return Workload.random(build("llama", request.param, seed=3), SAMPLES)


@pytest.fixture(scope="module")
def fitted(work):
    """Waits and passes of a sequential fit."""
    return of_fit(work.model, lambda: work.fit([REDUCTION], "sequential", BATCH))


def test_a_fit_waits_once_a_layer_for_a_whole_batch(work, fitted):
    layers, (waits, passes) = len(work.model.model.language_model.layers), fitted
    # The passes that take the statistics drop nothing.
    assert passes > BATCHES
    assert waits <= BATCHES * PER_BATCH + (passes - BATCHES) * layers + PER_FIT


def test_a_one_pass_fit_does_not_wait_in_its_layers(work):
    waits, passes = of_fit(work.model, lambda: work.fit([REDUCTION], "one-pass", BATCH))
    assert passes == BATCHES
    assert waits <= BATCHES * PER_BATCH + PER_FIT


def test_samples_of_a_batch_do_not_wait_each_for_itself():
    model = build("llama-gqa", 6, seed=3)
    counted = []
    for samples in (1, 8):
        given = batch([prompt(model, [3, "image", 5], seed) for seed in range(samples)])
        with Waits() as waits:
            drop_counts(model, [given], 0.05)
        counted.append(waits.waits)
    assert counted[0] == counted[1]


def test_the_published_procedure_waits_and_passes_ten_times_as_often(work, fitted):
    """It takes its samples one by one, so that one of them is counted; with its Python loops, and without."""
    for loops in (True, False):
        waits, passes = of_fit(
            work.model, lambda loops=loops: work.first(1).published(REDUCTION, loops=loops, read_again=False)
        )
        assert SAMPLES * waits >= 10 * fitted[0]
        assert SAMPLES * passes >= 10 * fitted[1]
