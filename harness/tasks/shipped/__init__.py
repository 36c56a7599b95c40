"""The suites that ship: which lmms-eval task each is, which data it reads, and what makes the data unfit for it.

One module a kind of answer, and one for videos. Those of every day come first; the others run where they are asked for by name.
"""

from dataclasses import replace

from harness.tasks.shipped import grounding, multiple_choice, open_ended, videos, yes_no
from harness.tasks.spec import SuiteSpec

EVERYDAY = frozenset({"gqa", "vqav2", "textvqa", "pope", "mme", "scienceqa"})
_ALL = (*open_ended.SUITES, *yes_no.SUITES, *multiple_choice.SUITES, *grounding.SUITES, *videos.SUITES)
_TOLD = (replace(spec, everyday=spec.name in EVERYDAY) for spec in _ALL)
SHIPPED: tuple[SuiteSpec, ...] = tuple(sorted(_TOLD, key=lambda spec: not spec.everyday))
