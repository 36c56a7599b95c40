"""The suites that ship: which lmms-eval task each is, which data it reads, and what makes the data unfit for it.

One module a kind of answer, and one for videos. The six of every day come first; the others run where they are asked for by
name.
"""

from harness.tasks.shipped import grounding, multiple_choice, open_ended, videos, yes_no
from harness.tasks.spec import SuiteSpec

_ALL = (*open_ended.SUITES, *yes_no.SUITES, *multiple_choice.SUITES, *grounding.SUITES, *videos.SUITES)
SHIPPED: tuple[SuiteSpec, ...] = tuple(sorted(_ALL, key=lambda spec: not spec.everyday))
