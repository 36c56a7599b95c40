"""One short test file per benchmark. `pytest suites/` runs them for every model, pruner and reduction that the
command line names.
"""

from pathlib import Path

fitprune_suites = True  # tells the pytest plugin that this folder's tests are cells
DATA = Path(__file__).parent / "data"  # the mini data; pyproject.toml registers them for the harness
