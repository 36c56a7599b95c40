"""Tests run offline and on one thread each, so that their arithmetic does not depend on the machine."""

import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.register_assert_rewrite("tests.support")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
