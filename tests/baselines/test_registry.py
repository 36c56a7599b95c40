"""Every registered method: found by its name, applied, recorded."""

import pytest

from baselines.registry import PRUNERS, get_pruner_class
from fitprune import BudgetError, FitPrune, FitPruneError, Pruner
from tests.support.models import build

pytestmark = pytest.mark.releases


def test_the_names():
    assert {"dense", "fitprune", "random", "fastv"} <= set(PRUNERS)
    for name, cls in PRUNERS.items():
        assert get_pruner_class(name) is cls
        assert cls.name == name
        assert issubclass(cls, Pruner)
        assert cls.__doc__


@pytest.mark.parametrize(
    ("typed", "meant"), [("fitprun", "fitprune"), ("fast-v", "fastv"), ("randm", "random"), ("Dense", "dense")]
)
def test_an_unknown_name_gets_the_nearest(typed, meant):
    with pytest.raises(FitPruneError, match=f"'{typed}'.*{meant}") as error:
        get_pruner_class(typed)
    assert "\n" not in str(error.value)


def test_a_name_near_to_none_gets_all():
    with pytest.raises(FitPruneError, match=", ".join(sorted(PRUNERS))):
        get_pruner_class("zzzzqqqq")


def test_fitprune_of_the_registry_is_the_library_s():
    assert PRUNERS["fitprune"] is FitPrune


def test_dense_has_no_budget():
    with pytest.raises(BudgetError, match="no free parameter"):
        PRUNERS["dense"].for_reduction(build("llama", 2).config, 0.5)
