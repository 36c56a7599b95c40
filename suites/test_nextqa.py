"""NExT-QA (Xiao et al. 2021, arXiv 2105.08276): multiple choice about causes and order of actions in videos."""


def test_nextqa(cell):
    cell.check()
