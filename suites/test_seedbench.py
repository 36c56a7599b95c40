"""SEED-Bench (Li et al. 2023, arXiv 2307.16125): multiple choice; the questions about an image."""


def test_seedbench(cell):
    cell.check()
