"""Tests run offline and on one thread each, so that their arithmetic does not depend on the machine.

Cases that are marked `exhaustive`, by hand or as the rest of a product, run where `-m` or the name of a test asks for them.
"""

import gc
import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.register_assert_rewrite("tests.support")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    from tests.support.products import mark_exhaustive  # its asserts are rewritten first

    mark_exhaustive(items)
    if not config.option.markexpr and not any("::" in argument for argument in config.args):
        left = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]


def pytest_collection_finish():
    """What all tests share is not looked through again whenever one of them collects garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
