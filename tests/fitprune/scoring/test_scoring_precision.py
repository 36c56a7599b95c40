"""Scoring in half precision where products of queries and keys exceed the largest float16, and without gradients."""

from types import SimpleNamespace

import pytest
import torch

from fitprune.interface.vision import Vision
from fitprune.scoring.column_sums import head_max_columns
from fitprune.scoring.rows import last_row_mean, row_maps, rows_mean

LENGTH, DIM = 20, 128
SCALING = DIM**-0.5
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}  # float32 logits of some 7000
TYPES = [torch.float16, torch.bfloat16]


def large(dtype):
    """Queries, which are also the keys, of a size that large biases give them: some inner products are above 65504."""
    return (torch.randn(1, 2, LENGTH, DIM, generator=torch.Generator().manual_seed(0)) + 25).to(dtype)


def attention(query):
    """The causal softmax map in float64."""
    logits = query.double() @ query.double().transpose(2, 3) * SCALING
    return logits.masked_fill(~torch.ones(LENGTH, LENGTH).tril().bool(), float("-inf")).softmax(-1)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_scene_overflows_and_sdpa_does_not(dtype):
    query = large(dtype)
    if dtype == torch.float16:
        assert not (query @ query.transpose(2, 3)).isfinite().all()
    out = torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    assert out.isfinite().all()


@pytest.mark.parametrize("dtype", TYPES)
def test_column_sums(dtype):
    query = large(dtype)
    weights = torch.rand(1, 2, LENGTH, generator=torch.Generator().manual_seed(1))
    sums, _ = head_max_columns(query, query, weights, SCALING)
    torch.testing.assert_close(sums.double(), weights.double() @ attention(query).amax(1), **TOLERANCE)


@pytest.mark.parametrize("dtype", TYPES)
def test_rows(dtype):
    query, expected = large(dtype), attention(large(dtype))
    last, _ = last_row_mean(query, query, torch.tensor([LENGTH - 1]), SCALING)
    torch.testing.assert_close(last.double(), expected[:, :, -1].mean(1), **TOLERANCE)
    chosen = torch.arange(LENGTH)[None] % 3 == 1
    maps, _, _ = row_maps(query, query, chosen, SCALING)
    torch.testing.assert_close(maps.double(), expected[:, :, chosen[0]], **TOLERANCE)
    mean, _ = rows_mean(query, query, chosen, SCALING)
    torch.testing.assert_close(mean.double(), expected[:, :, chosen[0]].mean((1, 2)), **TOLERANCE)


def tower(query):
    """A `Vision` of a tower with a [CLS] token, as far as its attention is concerned."""
    vision = Vision.__new__(Vision)
    vision.has_cls = True
    vision._spend = lambda macs: None
    vision._record = SimpleNamespace(query=[query], key=[query], tower=SimpleNamespace(layers=[None]))
    vision._global_index = torch.zeros(1, 1, dtype=torch.long)
    return vision


@pytest.mark.parametrize("dtype", TYPES)
def test_the_tower(dtype):
    query = large(dtype)
    expected = (query.double() @ query.double().transpose(2, 3) * SCALING).softmax(-1)
    torch.testing.assert_close(tower(query).cls_attention(0).double(), expected[:, :, 0, 1:], **TOLERANCE)
    received = expected[:, :, 1:, 1:].mean((1, 2))
    torch.testing.assert_close(tower(query).received_attention(0).double(), received, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, *TYPES])
def test_no_score_requires_a_gradient(dtype):
    query = large(dtype).requires_grad_()
    chosen = torch.arange(LENGTH)[None] % 3 == 1
    scores = [
        head_max_columns(query, query, torch.ones(1, 1, LENGTH), SCALING)[0],
        last_row_mean(query, query, torch.tensor([LENGTH - 1]), SCALING)[0],
        row_maps(query, query, chosen, SCALING)[0],
        rows_mean(query, query, chosen, SCALING)[0],
        tower(query).cls_attention(0),
        tower(query).received_attention(0),
    ]
    assert not [score for score in scores if score.requires_grad]
