"""The column sums of one layer: whether the kernels are right, then how fast they are against torch and against attention.

On a GPU the Triton kernels; elsewhere the blocks in torch stand in for them, and the whole map for torch.
"""

import functools
from importlib.util import find_spec

import torch

from fitprune import FitPruneError
from fitprune.scoring.column_sums import head_max_columns, kernels_for
from tests.benchmarks.bench_columns import contestants, measured
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.section import Measured, Row, Section
from tests.benchmarks.gpu.sizes import Sizes
from tests.support.triton_cases import CASES, ON_CUDA, WIDE, inputs, literal

RIGHT = "largest error against the whole map in float64, over the error allowed"


def rows(sizes: Sizes) -> list[Row]:
    """First whether the sums are right."""
    fast = [
        Row(f"time over torch's, {length} tokens, batch {batch}", 8, functools.partial(_speed, length, batch), limit=1.0)
        for length in sizes.lengths
        for batch in sizes.batches
    ]
    return [Row(RIGHT, 90, _errors, limit=1.0), *fast]


def _errors(bench: Bench) -> Measured:
    """The largest |error| / (atol + rtol · |wanted|) over all cases. Raises FitPruneError where one is above 1."""
    cases = CASES | WIDE if bench.cuda else CASES
    shares = {}
    for name, case in cases.items():
        query, key, weights, valid = inputs(case, bench.device)
        found, _ = head_max_columns(query, key, weights, case.scaling, valid, case.first_row)
        wanted = literal(case, bench.device)
        error = (found.double() - wanted).abs() / (ON_CUDA["atol"] + ON_CUDA["rtol"] * wanted.abs())
        shares[name] = float(error.nan_to_num(float("inf")).max())
    worst = max(shares, key=shares.__getitem__)
    if shares[worst] > 1:
        raise FitPruneError(f"the column sums are wrong: '{worst}' errs by {shares[worst]:.3g} of what is allowed")
    by = "Triton" if kernels_for(query) is not None else "torch"
    allowed = f"allowed {ON_CUDA['rtol']:g} of the sum and {ON_CUDA['atol']:g}"
    return Measured(shares[worst], f"{len(shares)} cases, by {by}; worst: {worst}; {allowed}", {"shares": shares})


def _speed(length: int, batch: int, bench: Bench) -> Measured:
    if bench.cuda and not find_spec("triton"):
        return Measured(None, "Triton is not installed; torch does the work")
    sizes, half = bench.sizes, getattr(torch, bench.dtype)
    probe = torch.empty(1, sizes.heads, 1, sizes.dim, device=bench.device, dtype=half)
    if bench.cuda and kernels_for(probe) is None:
        return Measured(None, "this card is older than the kernels ask for; torch does the work")
    works = contestants(bench.device, batch, sizes.heads, length, sizes.dim, half)
    found = measured(works, bench.device, 3 * sizes.repeats)
    torch_s = next(name for name in found if name.startswith("time / "))
    beside = "; ".join(f"{name}: {value:.3g}" for name, value in found.items() if name != torch_s)
    return Measured(found[torch_s], beside, found)


SECTION = Section("columns", "the kernels of the column sums", rows)
