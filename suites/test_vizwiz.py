"""VizWiz (Gurari et al. 2018, arXiv 1802.08218): photographs and questions of blind people; a third cannot be answered."""


def test_vizwiz(cell):
    cell.check()
