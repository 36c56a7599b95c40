"""RefCOCO (Kazemzadeh et al. 2014): the box of what an expression names."""


def test_refcoco(cell):
    cell.check()
