"""AI2D (Kembhavi et al. 2016, arXiv 1603.07396): multiple choice about diagrams."""


def test_ai2d(cell):
    cell.check()
