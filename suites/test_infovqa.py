"""InfographicVQA (Mathew et al. 2022, arXiv 2104.12756): questions about infographics, scored by edit distance."""


def test_infovqa(cell):
    cell.check()
