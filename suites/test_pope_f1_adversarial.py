"""POPE by the F1 of "yes": objects that are often seen beside those that are there."""


def test_pope_f1_adversarial(cell):
    cell.check()
