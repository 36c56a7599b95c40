"""Fitting a recipe: calibration prompts, the search for a budget, and what it keeps on disk."""
