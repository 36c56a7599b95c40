"""MMBench (Liu et al. 2023, arXiv 2307.06281), English: multiple choice, right where every rotation of the options is."""


def test_mmbench(cell):
    cell.check()
