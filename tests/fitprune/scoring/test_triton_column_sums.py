"""The column statistics by Triton, against the literal attention map: interpreted, compiled, and on CUDA where there is one."""

import pytest
import torch

from fitprune.scoring import column_sums
from fitprune.scoring.column_sums import head_max_columns, head_max_columns_in_blocks
from fitprune.scoring.macs import counted
from harness.cost.memory import peak_cpu_bytes, peak_cuda_bytes
from tests.support import triton_runs
from tests.support.triton_cases import CASES, COMPILED, ON_CUDA, SHAPES, WIDE, Case, inputs, literal, pruned
from tests.support.triton_runs import TRITON

pytestmark = pytest.mark.releases
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Float32 sums of a few hundred terms, and logits of up to some 20 whose rounding is an error of the exponent.
TOLERANCE = {"rtol": 5e-6, "atol": 1e-7}


SHARED = {86: 99 * 1024, 90: 227 * 1024}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    return triton_runs.interpreted(tmp_path_factory)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return triton_runs.compiled(tmp_path_factory)


@TRITON
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_the_interpreted_kernels_are_the_literal_map(name, interpreted):
    expected = literal(CASES[name])
    assert interpreted[name].dtype == torch.float32
    torch.testing.assert_close(interpreted[name].double(), expected, **TOLERANCE)


@TRITON
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_the_interpreted_kernels_are_the_torch_blocks(name, interpreted):
    case = CASES[name]
    query, key, weights, valid = inputs(case)
    blocks, _ = head_max_columns_in_blocks(query, key, weights, case.scaling, valid, case.first_row)
    torch.testing.assert_close(interpreted[name], blocks, **TOLERANCE)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block_rows", [1, 32, 128])
def test_the_torch_blocks_are_the_literal_map(name, block_rows):
    case = CASES[name]
    query, key, weights, valid = inputs(case)
    blocks, _ = head_max_columns_in_blocks(query, key, weights, case.scaling, valid, case.first_row, block_rows)
    torch.testing.assert_close(blocks.double(), literal(case), **TOLERANCE)


def test_the_torch_blocks_never_hold_a_map():
    case = Case(16, 2048, padding=(0,))
    query, key, weights, _ = inputs(case)
    peak = peak_cpu_bytes(lambda: head_max_columns_in_blocks(query, key, weights, case.scaling))
    assert peak < case.heads * case.length**2 * 4 / 4


@TRITON
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["multi-head, float32", "grouped, bfloat16", "first row within left padding, float32"])
def test_both_products_of_queries_and_keys_are_counted(name, interpreted):
    """Tiles of 64 × 64, counted one by one where a row of theirs sees a key of theirs; what is padding is left out."""
    case = CASES[name]
    valid = inputs(case)[3]
    places = 0
    for sample in range(len(case.padding)):
        real = [valid is None or bool(valid[sample, row]) for row in range(case.length)]
        for start in range(case.first_row, case.length, 64):
            for first in range(0, case.length, 64):
                rows, keys = range(start, min(start + 64, case.length)), range(first, min(first + 64, case.length))
                places += sum(real[row] for row in rows) * sum(real[key] for key in keys) * (keys[0] <= rows[-1])
    assert int(interpreted[f"{name} macs"]) == places * (2 * case.heads * case.dim + case.sums)


@TRITON
@pytest.mark.exhaustive
def test_fitprune_keeps_the_same_tokens_by_the_kernels(interpreted):
    expected = pruned().kept
    assert len(expected) == 3
    for layer, tokens in enumerate(expected):
        assert torch.equal(interpreted[f"kept {layer}"], tokens)


@TRITON
def test_the_kernels_compile_for_cards_that_are_not_here(compiled):
    """What the interpreter takes the compiler may refuse; and a tile must fit a card's shared memory."""
    kernels = compiled["kernels"]
    assert len(kernels) == 2 * len(COMPILED)
    for (architecture, dtype, *_), kernel in zip([key for key in COMPILED for _ in range(2)], kernels, strict=True):
        assert kernel["shared"] <= SHARED[architecture]
        matrix = {86: "mma.sync", 90: "wgmma.mma_async"}[architecture] if dtype == "bfloat16" else "fma.rn.f32"
        assert matrix in kernel["instructions"]
        assert "tf32" not in kernel["instructions"]


@TRITON
def test_where_triton_cannot_run_a_warning_says_so(compiled):
    assert compiled["runs"] is False
    assert compiled["warning"].startswith("Triton does not run on cpu (")
    assert "are computed by torch" in compiled["warning"]
    assert "\n" not in compiled["warning"]


@TRITON
@pytest.mark.parametrize(("dtype", "dim"), [(torch.float64, 64), (torch.bfloat16, 512)])
def test_what_the_kernels_have_no_tile_for_is_left_to_torch(dtype, dim):
    from fitprune.scoring.triton_column_sums import supported

    assert not supported(torch.empty(1, 1, 1, dim, dtype=dtype))


def test_on_the_cpu_torch_does_it(monkeypatch):
    monkeypatch.setattr(column_sums, "_kernels", lambda: pytest.fail("Triton was asked for"))
    case = SHAPES["grouped"]
    query, key, weights, valid = inputs(case)
    result, macs = head_max_columns(query, key, weights, case.scaling, valid, case.first_row)
    blocks, block_macs = head_max_columns_in_blocks(query, key, weights, case.scaling, valid, case.first_row)
    assert torch.equal(result, blocks)
    assert counted(macs) == counted(block_macs)


@CUDA
@TRITON
@pytest.mark.parametrize("case", [*CASES.values(), *WIDE.values()], ids=[*CASES, *WIDE])
def test_on_cuda_the_kernels_are_the_literal_map_in_every_run(case):
    from fitprune.scoring import triton_column_sums

    query, key, weights, valid = inputs(case, "cuda")
    if column_sums.kernels_for(query) is None:
        pytest.skip("this card is older than the kernels ask for")
    result, _ = triton_column_sums.head_max_columns(query, key, weights, case.scaling, valid, case.first_row)
    again, _ = head_max_columns(query, key, weights, case.scaling, valid, case.first_row)
    assert torch.equal(result, again)
    torch.testing.assert_close(result.double(), literal(case, "cuda"), **ON_CUDA)


@CUDA
@TRITON
def test_on_cuda_the_kernels_never_hold_a_map():
    from fitprune.scoring import triton_column_sums

    case = WIDE["7B, long"]
    query, key, weights, _ = inputs(case, "cuda")
    if column_sums.kernels_for(query) is None:
        pytest.skip("this card is older than the kernels ask for")
    peak = peak_cuda_bytes(lambda: triton_column_sums.head_max_columns(query, key, weights, case.scaling), query.device)
    assert peak < case.heads * case.length**2 * 2 / 100


@CUDA
@TRITON
def test_on_cuda_fitprune_keeps_what_it_keeps_on_the_cpu():
    # The tower's convolution would be in TF32.
    with torch.backends.cudnn.flags(allow_tf32=False):
        on_card = pruned("cuda").kept
    for tokens, wanted in zip(on_card, pruned().kept, strict=True):
        assert torch.equal(tokens.cpu(), wanted)
