"""The pytest plugin that turns `pytest suites/` into a table of accuracy against FLOPs, and into a gate."""
