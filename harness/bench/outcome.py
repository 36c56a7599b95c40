"""`Measured`, and `outcome`: from a cell's answers to its result, with its drop, its interval and its remarks."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fitprune import FitPrune, FitPruneError
from harness.answers import MEAN, RESAMPLED, Answers
from harness.bench.evaluation import Pair
from harness.bench.resolved import Resolved
from harness.cells import Cell, CellSettings
from harness.results.computed import computed
from harness.results.result import Result, now

REDUCTION_TOLERANCE = 0.01  # a measured reduction farther from the one asked for is noted


@dataclass
class Measured:
    """What a cell gave: its result, its answers, and the dense answers that it was compared with.

    Attributes:
        cached: whether an earlier run measured it, and its result lies in the folder.
    """

    result: Result
    answers: Answers
    dense: Answers
    cached: bool = False

    @classmethod
    def stored(cls, cell: Cell, result: Result, records: list[dict[str, Any]]) -> "Measured":
        """An earlier run's outcome, `computed` anew, of a cell that may have been asked for in other words: another path to
        the same model.

        Raises FitPruneError for records that are none of answers.
        """
        own, dense = result.both(records)
        result = dataclasses.replace(
            result, model=cell.model, recipe=cell.recipe, positions_asked=cell.positions, reduction_asked=cell.reduction
        )
        return cls(computed(result, own, dense), own, dense, cached=True)


def check(resolved: Resolved, pair: Pair) -> None:
    """Raise FitPruneError for answers that nothing may be made of."""
    cell = resolved.cell
    if not cell.is_dense and pair.pruned.reduction <= 0:
        raise FitPruneError(
            f"{cell.label()} on {cell.suite} pruned nothing that its scoring did not cost: "
            f"{pair.pruned.reduction:.1%} of the visual tokens' FLOPs saved"
        )
    if pair.pruned.answers.data_digest != resolved.identity["data_digest"]:
        raise FitPruneError(f"the data of {cell.suite} changed while the run was going on; run it again")


def outcome(
    resolved: Resolved, pair: Pair, timed: Mapping[str, Any], settings: CellSettings, notes: Iterable[str], may_stop: bool
) -> Measured:
    """A cell's result.

    Args:
        timed: its `latency_ms` and `memory_mb`.
        notes: what its pruner says of the model.
        may_stop: whether the run was to stop asking where a drop is decided.
    """
    cell, dense, pruned = resolved.cell, pair.dense, pair.pruned
    # What is no mean for one of the two is compared as none.
    found = {pruned.answers.statistic, dense.answers.statistic}
    statistic = RESAMPLED if RESAMPLED in found else pruned.answers.statistic
    own, before = (dataclasses.replace(answers, statistic=statistic) for answers in (pruned.answers, dense.answers))
    remarks = [*pruned.answers.notes, *notes, *_remarks(resolved, pair, settings, may_stop)]
    result = Result(
        **{**resolved.identity, "statistic": statistic},
        key=resolved.key,
        score=pruned.answers.score,
        dense_score=dense.answers.score,
        drop=math.nan,
        drop_ci95=(math.nan, math.nan),
        full_n=pair.full_n,
        n=0,
        flops=pruned.flops,
        dense_flops=dense.flops,
        reduction=pruned.reduction,
        latency_ms=timed["latency_ms"],
        memory_mb=timed["memory_mb"],
        date=now(),
        reduction_asked=cell.reduction,
        reduction_end_to_end=1 - pruned.flops / dense.flops,
        recipe=cell.recipe,
        positions_asked=cell.positions,
        data=settings.data,
        tokens=pruned.answers.tokens,
        seconds=pruned.answers.seconds,
        tokens_per_layer=pruned.tokens_per_layer,
        note="; ".join(remarks),
        replicates=own.replicates,
        dense_replicates=before.replicates,
    )
    return Measured(computed(result, own, before), own, before)


def _remarks(resolved: Resolved, pair: Pair, settings: CellSettings, may_stop: bool) -> list[str]:
    """What a reader of the result must know."""
    cell, saved, remarks = resolved.cell, pair.pruned.reduction, []
    if cell.reduction is not None and abs(saved - cell.reduction) > REDUCTION_TOLERANCE:
        remarks.append(
            f"{cell.suite}: {cell.label()} saves {saved:.3f} of the visual tokens' FLOPs, not the {cell.reduction:g} asked for"
        )
    if may_stop and not cell.is_dense and resolved.identity["statistic"] != MEAN:
        remarks.append(
            f"{cell.suite}: its metric is no mean that is known before, so all were asked, and the gate is `significant`"
        )
    remarks += [f"{cell.recipe}: {reason}" for reason in _void(resolved)]
    if cell.needs_fit and settings.data == "hub":
        remarks.append(
            f"{cell.model}: its recipes were fitted on the embedded calibration scenes; "
            "fit on data like yours and give --recipe"
        )
    return remarks


def _void(resolved: Resolved) -> list[str]:
    """Why the certificate of the cell's recipe does not hold for its model, or for its suite if that was certified."""
    recipe = resolved.pruner.recipe if resolved.cell.recipe and isinstance(resolved.pruner, FitPrune) else None
    if recipe is None or recipe.certificate is None:
        return []
    certified, suite = recipe.certificate, resolved.cell.suite
    data = {suite: resolved.identity["data_digest"]} if suite in {one.suite for one in certified.suites} else {}
    reason = certified.void(recipe.counts, {"weights": resolved.facts.weights}, data)
    return [reason] if reason else []
