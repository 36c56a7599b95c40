"""What do FitPrune's column statistics of one layer cost, beside the layer's attention? One table of ratios.

    python -m tests.benchmarks.bench_columns [--lengths 640,2944] [--batch-sizes 1,8] [--heads 32] [--dim 128]

On CUDA, in bfloat16: the Triton kernels, the same in torch by blocks of rows, and SDPA attention. Elsewhere: the torch
blocks and the whole attention map, in float32. Memory is the peak beyond queries, keys and values.
"""

import argparse
import functools
import statistics
from importlib.util import find_spec

import torch
from tabulate import tabulate

from fitprune.scoring.column_sums import head_max_columns_in_blocks
from harness.cost.memory import peak_cpu_bytes, peak_cuda_bytes
from tests.benchmarks.clock import Work, seconds


def whole_map(query: torch.Tensor, key: torch.Tensor, weights: torch.Tensor, scaling: float) -> torch.Tensor:
    """The statistics from the whole (batch, heads, T, T) attention map."""
    logits = torch.matmul(query, key.transpose(2, 3)).mul_(scaling)
    future = torch.ones(logits.shape[2:], dtype=torch.bool, device=query.device).triu(1)
    return torch.matmul(weights, logits.masked_fill_(future, float("-inf")).softmax(-1).amax(1))


def contestants(
    device: torch.device, batch: int, heads: int, length: int, dim: int, half: torch.dtype = torch.bfloat16
) -> dict[str, Work]:
    """What is compared, the first with all others, on random queries and keys of one layer; on CUDA in the precision `half`."""
    dtype = half if device.type == "cuda" else torch.float32
    # As a decoder layer has them: a view of (batch, T, heads, d).
    query, key, value = (torch.randn(batch, length, heads, dim, device=device, dtype=dtype).transpose(1, 2) for _ in range(3))
    weights = torch.rand(batch, 2, length, device=device) / length
    scaling = dim**-0.5
    blocks = {"torch blocks": lambda: head_max_columns_in_blocks(query, key, weights, scaling)}
    if device.type != "cuda":
        return blocks | {"whole map": lambda: whole_map(query, key, weights, scaling)}
    from fitprune.scoring import triton_column_sums

    kernels = {"Triton": lambda: triton_column_sums.head_max_columns(query, key, weights, scaling)}
    attention = torch.nn.functional.scaled_dot_product_attention
    return kernels | blocks | {"SDPA attention": lambda: attention(query, key, value, is_causal=True)}


def measured(works: dict[str, Work], device: torch.device, repeats: int) -> dict[str, float]:
    """The first one's milliseconds; by `time / NAME` the median of the first's time over each other's, in neighbouring runs; by
    `NAME MB` the peak memories."""
    first, *others = works
    for work in works.values():
        for _ in range(2):
            work()
    runs = [{name: seconds(work, device) for name, work in works.items()} for _ in range(repeats)]
    found = {f"{first} ms": 1000 * statistics.median(run[first] for run in runs)}
    found |= {f"time / {other}": statistics.median(run[first] / run[other] for run in runs) for other in others}
    peak = functools.partial(peak_cuda_bytes, device=device) if device.type == "cuda" else peak_cpu_bytes
    return found | {f"{name} MB": peak(work) / 1e6 for name, work in works.items()}


def numbers(text: str) -> list[int]:
    """A comma-separated list of whole numbers."""
    return [int(number) for number in text.split(",")]


@torch.no_grad()
def main() -> None:
    """Print the table, with what it was measured on."""
    cuda = torch.cuda.is_available() and find_spec("triton") is not None
    parser = argparse.ArgumentParser(description="Time and memory of the column statistics of one layer.")
    parser.add_argument("--lengths", type=numbers, default=[640, 2944] if cuda else [640, 1280])
    parser.add_argument("--batch-sizes", type=numbers, default=[1, 8] if cuda else [1])
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=21 if cuda else 5)
    arguments = parser.parse_args()
    device = torch.device("cuda" if cuda else "cpu")
    if cuda:
        machine = torch.cuda.get_device_name(device)
    else:
        print("The kernels need a CUDA device and Triton; here the torch blocks are compared with the whole attention map.\n")
        machine = f"CPU, {torch.get_num_threads()} threads"
    print(f"{machine}; {arguments.heads} heads of {arguments.dim}; medians of {arguments.repeats} paired repeats.\n")
    rows = []
    for length in arguments.lengths:
        for batch in arguments.batch_sizes:
            works = contestants(device, batch, arguments.heads, length, arguments.dim)
            found = measured(works, device, arguments.repeats)
            cells = {name: f"{value:.{0 if name.endswith(' MB') else 2}f}" for name, value in found.items()}
            rows.append({"tokens": length, "batch": batch, **cells})
    print(tabulate(rows, "keys", tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
