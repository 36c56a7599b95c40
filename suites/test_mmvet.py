"""MM-Vet (Yu et al. 2023, arXiv 2308.02490): open questions whose answers a language model scores."""


def test_mmvet(cell):
    cell.check()
