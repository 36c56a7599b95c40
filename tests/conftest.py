"""Tests run offline and on one thread each, so that their arithmetic does not depend on the machine."""

import gc
import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.register_assert_rewrite("tests.support")


def pytest_collection_finish():
    """What all tests share is not looked through again whenever one of them collects garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
