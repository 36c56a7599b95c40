"""POPE by the F1 of "yes": the most frequent objects."""


def test_pope_f1_popular(cell):
    cell.check()
