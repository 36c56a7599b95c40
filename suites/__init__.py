"""One short test file per benchmark. `pytest suites/` runs them for every model, pruner and reduction that the
command line names.
"""

fitprune_suites = True  # tells the pytest plugin that this folder's tests are cells
