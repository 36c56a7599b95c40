"""Writes the mini suites: `fitprune scenes [--out suites/data]`; in fine print with `--canvas 1x3`."""
