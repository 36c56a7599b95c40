"""POPE by the F1 of "yes": any objects."""


def test_pope_f1_random(cell):
    cell.check()
