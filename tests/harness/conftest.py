"""Cells are timed twice, not five times, one prompt at a time: what their times come to is tested where they are measured."""

import pytest

import harness.bench.timing


@pytest.fixture(autouse=True, scope="session")
def few_repeats():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.bench.timing, "LATENCY_REPEATS", 2)
        patch.setattr(harness.bench.timing, "LATENCY_BATCH", 1)
        yield
