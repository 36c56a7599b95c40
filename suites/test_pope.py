"""POPE (Li et al. 2023, arXiv 2305.10355): is an object there? Random, popular and adversarial questions."""


def test_pope(cell):
    cell.check()
