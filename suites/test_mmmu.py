"""MMMU (Yue et al. 2023, arXiv 2311.16502): college-level questions of 30 subjects, some about several images."""


def test_mmmu(cell):
    cell.check()
