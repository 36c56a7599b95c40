"""TextVQA (Singh et al. 2019, arXiv 1904.08920): questions that need the text in the image."""


def test_textvqa(cell):
    cell.check()
