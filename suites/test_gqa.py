"""GQA (Hudson and Manning 2019, arXiv 1902.09506): compositional questions about real scenes."""


def test_gqa(cell):
    cell.check()
