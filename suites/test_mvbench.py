"""MVBench (Li et al. 2023, arXiv 2311.17005): twenty tasks about videos that no single frame answers."""


def test_mvbench(cell):
    cell.check()
