"""MMStar (Chen et al. 2024, arXiv 2403.20330): multiple choice that needs the image."""


def test_mmstar(cell):
    cell.check()
