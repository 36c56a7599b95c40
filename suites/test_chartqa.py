"""ChartQA (Masry et al. 2022, arXiv 2203.10244): questions about charts; numbers may be 5 % off."""


def test_chartqa(cell):
    cell.check()
