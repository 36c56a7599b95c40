"""ScienceQA (Lu et al. 2022, arXiv 2209.09513): multiple choice, the questions with an image."""


def test_scienceqa(cell):
    cell.check()
