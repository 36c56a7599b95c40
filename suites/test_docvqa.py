"""DocVQA (Mathew et al. 2021, arXiv 2007.00398): questions about scanned documents, scored by edit distance."""


def test_docvqa(cell):
    cell.check()
