"""MMBench-CN (Liu et al. 2023, arXiv 2307.06281): the same in Chinese."""


def test_mmbench_cn(cell):
    cell.check()
