"""RealWorldQA (xAI 2024): where things are, and how many, in photographs of streets and rooms."""


def test_realworldqa(cell):
    cell.check()
