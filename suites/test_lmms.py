"""Any other task of lmms-eval that generates answers about images: pytest suites/test_lmms.py --suite TASK[:METRIC]."""


def test_lmms(cell):
    cell.check()
