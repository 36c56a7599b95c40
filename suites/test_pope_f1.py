"""POPE by the F1 of "yes", over all three kinds of questions."""


def test_pope_f1(cell):
    cell.check()
