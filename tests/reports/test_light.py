"""Reading and writing reports needs neither a model nor a test runner."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["reports.table.leaderboard", "reports.page.html", "harness.gate.saved"])
def test_reports_load_neither_torch_nor_pytest(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'pytest', '_pytest'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
