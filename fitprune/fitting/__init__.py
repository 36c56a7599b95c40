"""Fitting a recipe: calibration batches, the search for alpha, the cost of a budget, and what is kept on disk."""

MODES = ("sequential", "one-pass")
