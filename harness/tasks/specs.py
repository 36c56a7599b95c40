"""The suites, by name."""

from fitprune.errors import unknown_name
from harness.tasks.shipped import SHIPPED
from harness.tasks.spec import SuiteSpec

SUITES: dict[str, SuiteSpec] = {spec.name: spec for spec in SHIPPED}


def find_suite(name: str) -> SuiteSpec:
    """The suite of that name, or of that lmms-eval task. Raises FitPruneError with the nearest names."""
    if name in SUITES:
        return SUITES[name]
    for spec in SUITES.values():
        if spec.task == name:
            return spec
    raise unknown_name("suite", name, SUITES)
