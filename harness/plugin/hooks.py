"""The hook that this plugin adds to pytest."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.bench.bench import Bench
    from harness.plugin.session import RunSession


@pytest.hookspec(firstresult=True)
def pytest_fitprune_bench(run: "RunSession") -> "Bench | None":
    """What evaluates this process's cells. A conftest may return an object of its own with `Bench.measuring`, for
    instance to evaluate elsewhere.
    """
