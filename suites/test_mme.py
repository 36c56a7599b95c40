"""MME (Fu et al. 2023, arXiv 2306.13394): pairs of yes/no questions; both of a pair right count extra."""


def test_mme(cell):
    cell.check()
