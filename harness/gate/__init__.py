"""The gate: what a cell may lose, saved runs to compare it with, and the words of a verdict."""
