"""Recipes: their counts, their file, the published ones, and what is said about them."""
