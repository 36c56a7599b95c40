"""MME, perception and cognition together, as tables with totals up to 2800 have it."""


def test_mme_total(cell):
    cell.check()
