"""What a process in which Triton interprets or compiles has found: run once for all tests of a run (`triton_child.py`)."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from tests.support.warm import python

ROOT = Path(__file__).parents[2]
TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: it has wheels for Linux only")


def child(*arguments, folder, interpret):
    """Standard output of triton_child.py."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"} | ({"TRITON_INTERPRET": "1"} if interpret else {})
    # Triton decides when it is imported whether it interprets, and to warm commands it is imported.
    interpreter = sys.executable if interpret else python()
    command = [interpreter, "-m", "tests.support.triton_child", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def once_per_run(tmp_path_factory, name, work):
    """A folder that `work` fills, once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            work(folder)
    return folder


def interpreted(tmp_path_factory):
    """Tensors by name: see `triton_child.interpret`."""
    folder = once_per_run(
        tmp_path_factory,
        "triton-interpreted",
        lambda folder: child("interpret", folder / "results.safetensors", folder=folder, interpret=True),
    )
    return load_file(folder / "results.safetensors")


def compiled(tmp_path_factory):
    """See `triton_child.compile_all`."""
    folder = once_per_run(
        tmp_path_factory,
        "triton-compiled",
        lambda folder: (folder / "said.json").write_text(child("compile", folder=folder, interpret=False)),
    )
    return json.loads((folder / "said.json").read_text())
