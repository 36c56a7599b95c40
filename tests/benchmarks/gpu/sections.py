"""All sections, the most valuable first."""

from tests.benchmarks.gpu import answers, columns, fitting, prefill
from tests.benchmarks.gpu.section import Section

SECTIONS: tuple[Section, ...] = (
    prefill.FEW,
    columns.SECTION,
    prefill.MANY,
    fitting.SECTION,
    answers.SECTION,
    prefill.METHODS_FEW,
    prefill.METHODS_MANY,
)
