"""The library's example runs as docs/library.md prints it."""

import os
import re
import subprocess
from pathlib import Path

from tests.support.warm import python

PAGE = Path(__file__).resolve().parent.parent / "docs" / "library.md"


def test_the_librarys_example_runs_as_printed(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [python(), "-W", "error::UserWarning", "example.py"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    answer, kept = ran.stdout.strip().split("\n", 1)
    assert answer.strip()
    ids = [int(number) for number in re.findall(r"\d+", kept.partition("[[")[2].partition("]]")[0])]
    assert 0 < len(ids) < 144  # the dense model has 144
    assert ids == sorted(set(ids))
    assert (tmp_path / "recipe.json").is_file()
    assert "Traceback" not in ran.stderr
