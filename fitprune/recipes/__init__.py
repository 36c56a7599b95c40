"""Recipes: the counts, their file, and the published ones."""
