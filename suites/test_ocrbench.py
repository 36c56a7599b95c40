"""OCRBench (Liu et al. 2024, arXiv 2305.07895): text in pictures of ten kinds."""


def test_ocrbench(cell):
    cell.check()
