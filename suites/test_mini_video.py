"""Drawn videos of moving things, asked about and scored by the code of MVBench (arXiv 2311.17005)."""


def test_mini_video(cell):
    cell.check()
