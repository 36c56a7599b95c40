"""VQAv2 (Goyal et al. 2017, arXiv 1612.00837): open questions with the answers of ten people."""


def test_vqav2(cell):
    cell.check()
