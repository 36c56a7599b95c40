"""Suites whose questions are about videos: their rows, and the files that these name."""
