"""`Asked`: what `fitprune tune` is asked for. It is checked before torch is imported."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from baselines.registry import check_name, get_pruner_class
from fitprune.errors import FitPruneError
from harness.answers import MEAN
from harness.cells import DENSE, CellSettings
from harness.gate.thresholds import Thresholds
from harness.models.checkpoint import require_model
from harness.models.devices import check_device
from harness.models.family_names import announced
from harness.models.registry import find_model
from harness.results.store import Store
from harness.tasks.preflight import check_data
from harness.tasks.specs import find_suite

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Asked:
    """What a search was asked for, checked.

    Attributes:
        again: the command that repeats it.
    """

    model: str
    suites: tuple[str, ...]
    allowed: Thresholds
    pruners: tuple[str, ...]
    reductions: tuple[float, ...]
    goal: str
    confirm: bool
    settings: CellSettings
    results: Path
    device: str | None
    again: str

    @classmethod
    def checked(cls, options: argparse.Namespace, again: str) -> "Asked":
        """The options of the command line. Raises FitPruneError, before any work, for what cannot be searched."""
        suites = tuple(dict.fromkeys(find_suite(name).name for name in options.suite))
        allowed: Thresholds = options.max_drop
        allowed.check(suites)
        for suite in suites:
            points = allowed.points(suite)
            if points is None or not 0 < points < 100:
                raise FitPruneError(f"--max-drop {allowed}: {suite} needs a number of points above 0 and below 100")
        for pruner in options.pruner:
            if pruner == DENSE:
                raise FitPruneError("--pruner dense: it saves nothing; name methods that prune")
            check_name(pruner)
        check_device(options.device)
        model = announced(options.model).name
        require_model(model)
        data = options.data or ("mini" if find_model(model).kind == "embedded" else "hub")
        for suite in suites:
            metric = find_suite(suite).metric
            if metric.statistic:
                require_mean(suite, metric.name, metric.statistic)
            check_data(suite, data)
        if not options.plan:
            Store(options.results).check_writable()
        for pruner in options.pruner:  # those of other packages, too, can be loaded
            get_pruner_class(pruner)
        reductions = options.reduction or BUDGETS
        settings = CellSettings(data, options.limit, options.batch_size, options.seed, tuple(sorted(reductions)))
        return cls(
            *(model, suites, allowed, options.pruner, settings.reductions, options.goal, options.confirm, settings),
            *(options.results, options.device, again),
        )

    def margin(self, suite: str) -> float:
        """Points that may be lost on a suite."""
        points = self.allowed.points(suite)
        assert points is not None
        return points


def require_mean(name: str, metric: str, statistic: str) -> None:
    """Raise FitPruneError for a suite whose score is not known to be a mean over questions."""
    if statistic != MEAN:
        raise FitPruneError(
            f"suite '{name}': its {metric} is no mean over questions, so that a part of them says nothing "
            "of the whole; tune on others, and gate this one with pytest suites/"
        )
