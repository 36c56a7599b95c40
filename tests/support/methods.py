"""Every registered method at a budget that a small model's sizes allow, and what comes out of it."""

import pytest
import torch

from baselines.registry import PRUNERS, get_pruner_class
from fitprune import BudgetError, FitPrune, Recipe
from tests.support.models import kept, new_tokens

RECIPE = Recipe([0, 9, 5, 12, 4], 36)
ON_IMAGES = [name for name, method in PRUNERS.items() if not method.videos]
ON_VIDEOS = [name for name in PRUNERS if name not in ON_IMAGES]
IN_CLIP = {"cdpruner": (18, 36), "trim": (0.5,)}


def one_a_kind(names=ON_IMAGES):
    """The methods as cases of which the default run asks the first of each room, by where it prunes; the others are
    marked `exhaustive`. For what another test asks of all methods in a like way.
    """
    names = list(names)
    first = {get_pruner_class(name).__module__.rpartition(".")[0]: name for name in reversed(names)}
    return [name if name in first.values() else pytest.param(name, marks=pytest.mark.exhaustive) for name in names]


def method(name, model, positions=None):
    """The method of this name for a decoder of five layers."""
    if name == "fitprune":
        pruner = FitPrune(RECIPE)
    elif name == "dense":
        pruner = PRUNERS[name]()
    elif name in IN_CLIP:
        # CLIP's text tower costs more than all visual tokens of a small decoder: no budget can be met.
        pruner = PRUNERS[name](*IN_CLIP[name])
    else:
        # Shares of five layers: some methods leave between layers, and reach no others.
        pruner = next(filter(None, (_at(PRUNERS[name], model, reduction) for reduction in (0.5, 0.6, 0.4, 0.7, 0.3))))
    pruner.positions = positions or pruner.positions
    return pruner


def _at(cls, model, reduction):
    try:
        return cls.for_reduction(model.config, reduction, visual_tokens=36)
    except BudgetError:
        return None


def outcome(model, inputs, pruner):
    """The answer, what is kept, what enters each layer, what scoring cost, and, last, the logits of a forward."""
    with torch.no_grad(), pruner(model) as trace:
        tokens = new_tokens(model, inputs, 3)
        logits = model(**inputs).logits
        survivors = [kept(trace, row) for row in range(len(tokens))]
        entered = torch.stack([*trace.visual_in, *trace.visual_out], 1).tolist()
        assert {layer.device for layer in trace.kept} == {trace.place.device}
    return tokens.tolist(), survivors, entered, list(trace.scoring_macs), logits


def same(one, other):
    """Whether two outcomes agree, to the bit."""
    return one[:-1] == other[:-1] and torch.equal(one[-1].cpu(), other[-1].cpu())
