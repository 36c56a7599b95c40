"""The Triton kernels where no GPU is, in a process of its own: Triton decides when it is imported whether it interprets.

TRITON_INTERPRET=1 python -m tests.support.triton_child interpret FILE    results of the cases of triton_cases.py
python -m tests.support.triton_child compile                              what the kernels compile to, as JSON
"""

import json
import sys
import warnings
from typing import Any

import torch
import triton
from safetensors.torch import save_file
from triton.backends.compiler import GPUTarget

from baselines.shared.choosing import greedy, rounds, triton_greedy
from fitprune.interface import attention
from fitprune.scoring import triton_column_sums
from fitprune.scoring.macs import counted
from tests.support import greedy_cases
from tests.support.triton_cases import CASES, COMPILED, inputs, pruned


def interpret(file: str) -> None:
    """Every case's columns and multiply-accumulates, what FitPrune keeps when its statistics come from the kernels, and what is
    chosen in every case of greedy choices."""
    results = {}
    for name, case in CASES.items():
        query, key, weights, valid = inputs(case)
        results[name], macs = triton_column_sums.head_max_columns(query, key, weights, case.scaling, valid, case.first_row)
        results[f"{name} macs"] = torch.tensor(counted(macs))
    attention.head_max_columns = by_the_kernels
    results |= {f"kept {layer}": kept for layer, kept in enumerate(pruned().kept)}
    greedy.kernels_for = rounds.kernels_for = lambda values: triton_greedy
    for name, case in greedy_cases.CASES.items():
        results |= {f"{method} {name}": chosen for method, chosen in greedy_cases.chosen(case).items()}
    save_file(results, file)


def by_the_kernels(*arguments: Any, together: None, **options: Any) -> Any:
    """`column_sums.head_max_columns` of causal attention, on a card."""
    assert together is None
    return triton_column_sums.head_max_columns(*arguments, **options)


class Card:
    """As much of a Triton driver as compiling for an absent card takes."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_all() -> None:
    """For each request, each kernel's shared memory and which matrix instructions it has; everything but the launch runs."""
    compiled = []

    def without_launch(kernel):
        def run(*arguments, grid, warmup, **options):
            compiled.append(type(kernel).run(kernel, *arguments, grid=grid, warmup=True, **options))

        return run

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = triton_column_sums.runs_on(torch.device("cpu"))
    answers = {"runs": runs, "warning": str(caught[0].message) if caught else "", "kernels": []}
    names = ("_farthest", "_covering", "_spanning", "_distinct")
    greedy_kernels = [getattr(triton_greedy, name) for name in names]
    kernels = [triton_column_sums._log_sum_exp, triton_column_sums._tile_sums, *greedy_kernels]
    for kernel in kernels:
        kernel.run = without_launch(kernel)
    for architecture, dtype, dim, length in COMPILED:
        triton.runtime.driver.set_active(Card(architecture))
        query = torch.ones(1, 2, length, dim, dtype=getattr(torch, dtype))
        valid = torch.ones(1, length, dtype=torch.bool)
        compiled.clear()
        triton_column_sums.head_max_columns(query, query, torch.ones(1, 2, length), 1.0, valid)
        for kernel in compiled:
            ptx = kernel.asm["ptx"]
            instructions = [name for name in ("wgmma.mma_async", "mma.sync", "fma.rn.f32", "tf32") if name in ptx]
            answers["kernels"].append({"shared": kernel.metadata.shared, "instructions": instructions})
    compiled.clear()
    greedy.kernels_for = rounds.kernels_for = lambda values: triton_greedy
    greedy_cases.chosen(greedy_cases.CASES["one sample"])
    answers["greedy"] = [kernel.metadata.shared for kernel in compiled]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"interpret": interpret, "compile": compile_all}[sys.argv[1]](*sys.argv[2:])
