"""Video-MME (Fu et al. 2024, arXiv 2405.21075): multiple choice about videos of seconds to an hour."""


def test_videomme(cell):
    cell.check()
