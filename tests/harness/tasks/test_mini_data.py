"""Where the mini data are: what an installed package registers, and a line where none does."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fitprune.errors import FitPruneError
from harness.tasks import mini_data
from harness.tasks.parquet import data_folder


@pytest.fixture
def registered(monkeypatch):
    """Registers another value for the mini data, or none."""
    mini_data.mini_folder.cache_clear()

    def register(*values):
        points = [EntryPoint(mini_data.NAME, value, mini_data.GROUP) for value in values]
        monkeypatch.setattr(mini_data.metadata, "entry_points", lambda **_: points)

    yield register
    mini_data.mini_folder.cache_clear()


def test_they_are_found_from_any_folder(tmp_path):
    code = "from harness.tasks.parquet import data_folder; print(data_folder('mini'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (Path(done.stdout.strip()) / "calibration.parquet").is_file()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((), r"not in this installation: no package registers 'mini' for fitprune.data; install fitprune-bench"),
        (["no_such_package:DATA"], r"cannot be found through no_such_package:DATA: No module named 'no_such_package'; install"),
        (["suites:NOWHERE"], r"cannot be found through suites:NOWHERE: .* has no attribute 'NOWHERE'; install"),
        (["harness.results.result:PACKAGES"], "cannot be found through"),
    ],
)
def test_what_is_missing_is_a_line_that_says_what_to_do(registered, values, said):
    registered(*values)
    with pytest.raises(FitPruneError, match=said) as refused:
        data_folder("mini")
    assert "\n" not in str(refused.value)
    assert "--data hub" in str(refused.value)


def test_the_package_does_not_stay_imported(registered, monkeypatch):
    """pytest imports the suites by their path, which may be that of a copy."""
    own = object()
    monkeypatch.setitem(sys.modules, "suites", own)
    registered("suites:DATA")
    assert (data_folder("mini") / "calibration.parquet").is_file()
    assert sys.modules["suites"] is own
    monkeypatch.delitem(sys.modules, "suites")
    mini_data.mini_folder.cache_clear()
    assert (data_folder("mini") / "calibration.parquet").is_file()
    assert "suites" not in sys.modules
