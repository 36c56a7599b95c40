"""Cases for the Triton kernels: for the tests, and for the process in which Triton interprets or compiles."""

from dataclasses import dataclass, replace

import torch

from fitprune import FitPrune, Recipe
from tests.support.models import batch, build, prompt


@dataclass(frozen=True)
class Case:
    dim: int
    length: int
    heads: int = 4
    kv_heads: int = 4
    sums: int = 2
    first_row: int = 0
    padding: tuple[int, ...] = (0, 0)
    side: str = "left"
    sharpness: float = 2.0
    dtype: str = "float32"
    layout: str = "heads first"
    seed: int = 0

    @property
    def scaling(self) -> float:
        return self.sharpness * self.dim**-0.5


SHAPES = {
    "multi-head": Case(8, 77),
    "grouped": Case(32, 130, kv_heads=2, first_row=13, layout="tokens first"),
    "multi-query, one sum": Case(80, 65, kv_heads=1, sums=1),
    "left padding": Case(32, 97, padding=(70, 5), layout="fused"),
    "right padding": Case(32, 97, padding=(3, 70), side="right", kv_heads=2),
    "first row within left padding": Case(8, 140, padding=(90, 0), first_row=71),
    "three sums, sharp": Case(32, 64, sums=3, sharpness=8.0),
    "head size not dense": Case(24, 70, heads=2, kv_heads=2, layout="head size first"),
    "one token": Case(32, 1),
    "largest head": Case(256, 70, heads=2, kv_heads=1),
}


CASES = {
    f"{name}, {dtype}": replace(case, dtype=dtype, seed=index)
    for index, (name, case) in enumerate(SHAPES.items())
    for dtype in ("float32", "bfloat16")
}


CASES["grouped, float16"] = replace(SHAPES["grouped"], dtype="float16")


# Long enough for the large tiles, which only half precision has.
CASES["long, bfloat16"] = Case(16, 1100, heads=2, kv_heads=1, first_row=500, padding=(600,), dtype="bfloat16")


WIDE = {
    "7B": Case(128, 700, heads=32, kv_heads=32, first_row=35, padding=(0, 41), dtype="bfloat16", layout="tokens first"),
    "7B, long": Case(128, 2944, heads=32, kv_heads=8, padding=(0,), dtype="bfloat16"),
    "head size 80": Case(80, 1300, heads=8, kv_heads=8, padding=(0, 600), dtype="float16"),
    "float32": Case(128, 700, heads=8, kv_heads=8, padding=(0, 41)),
}

# Tensor cores cut off what they add to a sum of products, eight times for 128 terms; exp2 and log2 are the card's own.
ON_CUDA = {"rtol": 4e-5, "atol": 1e-7}


# Architecture, type, head size, length. Consumer cards have 99 KiB of shared memory for a program, Hopper has 227.
COMPILED = [
    (86, "bfloat16", 128, 2944),
    (90, "bfloat16", 128, 640),
    (90, "bfloat16", 128, 2944),
    (86, "float32", 128, 640),
]


def inputs(case, device="cpu"):
    """Query, key, row weights and valid of a case; the weights of padding rows and of rows before the first are 0."""
    generator = torch.Generator().manual_seed(case.seed)

    def draw(heads):
        extra = 3 if case.layout == "fused" else 0
        drawn = torch.randn(len(case.padding), case.length, heads + extra, case.dim, generator=generator)
        drawn = drawn.to(device, getattr(torch, case.dtype))
        if case.layout == "head size first":
            return drawn.permute(0, 2, 3, 1).contiguous().transpose(2, 3)
        if case.layout == "fused":
            drawn = drawn[:, :, 2:-1]
        drawn = drawn.transpose(1, 2)
        return drawn.contiguous() if case.layout == "heads first" else drawn

    query, key = draw(case.heads), draw(case.kv_heads)
    place = torch.arange(case.length)
    padding = torch.tensor(case.padding)[:, None]
    valid = place >= padding if case.side == "left" else place < case.length - padding
    weights = torch.rand(len(case.padding), case.sums, case.length, generator=generator)
    weights = weights * valid[:, None] * (place >= case.first_row)
    return query, key, weights.to(device), None if bool(valid.all()) else valid.to(device)


def literal(case, device="cpu"):
    """The statistic from the whole attention map, in float64."""
    query, key, weights, valid = inputs(case, device)
    key = key.double().repeat_interleave(case.heads // case.kv_heads, 1)
    logits = query.double() @ key.transpose(2, 3) * case.scaling
    seen = torch.ones(case.length, case.length, dtype=torch.bool, device=device).tril()
    if valid is not None:
        seen = seen & valid[:, None, None, :]
    # A padding row may see nothing: 0 / 0.
    attention = logits.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0)
    return weights.double() @ attention.amax(1)


def pruned(device="cpu"):
    """What a FitPrune of two left-padded prompts leaves, as a trace."""
    model = build("llama-gqa", 3, seed=2).to(device)
    samples = batch([prompt(model, [3, "image", 9], seed=1), prompt(model, [2, "image", 4], seed=2)])
    with torch.no_grad(), FitPrune(Recipe([9, 7, 12], 36))(model) as trace:
        model(**{name: tensor.to(device) for name, tensor in samples.items()})
    return trace
