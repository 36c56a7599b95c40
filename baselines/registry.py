"""Which pruning methods there are, by the name that the command line takes."""

from baselines.dense import Dense
from baselines.fastv import FastV
from baselines.random import Random
from fitprune import FitPrune, Pruner
from fitprune.errors import unknown_name

PRUNERS: dict[str, type[Pruner]] = {cls.name: cls for cls in (Dense, FitPrune, FastV, Random)}


def get_pruner_class(name: str) -> type[Pruner]:
    """The class registered under `name`.

    Raises:
        FitPruneError: there is none; the message gives the nearest names.
    """
    try:
        return PRUNERS[name]
    except KeyError:
        raise unknown_name("pruner", name, PRUNERS) from None
