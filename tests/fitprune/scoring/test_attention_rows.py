"""Attention of some rows, as methods ask for it, against a map made in loops."""

import math

import pytest
import torch

from fitprune.interface.attention import Attention
from fitprune.interface.layout import prompt_layout
from fitprune.interface.tokens import VisualTokens

pytestmark = pytest.mark.releases
BATCH, HEADS, KV, LENGTH, WIDTH = 3, 4, 2, 11, 6
VISUAL = [[2, 3, 4, 5], [5, 6, 7], [3, 4]]
CHOSEN = [[6, 8, 10], [9], []]


def literal(query, key, valid, sample, head, row):
    """One row of softmax attention, a list over all keys."""
    logits = [
        float(query[sample, head, row] @ key[sample, head // (HEADS // KV), column]) * 0.5
        if column <= row and valid[sample, column]
        else -math.inf
        for column in range(LENGTH)
    ]
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


@pytest.fixture(params=["padded", "whole"])
def scene(request):
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(BATCH, HEADS, LENGTH, WIDTH, generator=generator)
    key = torch.randn(BATCH, KV, LENGTH, WIDTH, generator=generator)
    valid = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    if request.param == "padded":
        valid[0, :2], valid[1, :4], valid[2, 9:] = False, False, False
    visual = torch.tensor([[row in places for row in range(LENGTH)] for places in VISUAL])
    layout = prompt_layout(visual, visual, valid)
    tokens = VisualTokens(torch.zeros(BATCH, LENGTH, 1), layout)
    rows = torch.zeros_like(valid)
    for sample, chosen in enumerate(CHOSEN):
        rows[sample, chosen] = True
    return Attention(query, key, 0.5), tokens, rows, valid


def test_every_head_of_every_row(scene):
    attention, tokens, rows, valid = scene
    weights, places = attention.row_columns(tokens, rows)
    assert weights.shape == (BATCH, HEADS, 3, 4)
    assert places.tolist() == [[6, 8, 10], [9, -1, -1], [-1, -1, -1]]
    for sample, chosen in enumerate(CHOSEN):
        for head in range(HEADS):
            for number, row in enumerate(chosen):
                whole = literal(attention.query, attention.key, valid, sample, head, row)
                expected = [whole[column] for column in VISUAL[sample]] + [0.0] * (4 - len(VISUAL[sample]))
                torch.testing.assert_close(weights[sample, head, number], torch.tensor(expected), rtol=1e-5, atol=1e-6)
    keys = valid.sum(1).tolist()
    assert attention.macs == (3 * keys[0] + keys[1]) * HEADS * WIDTH


def test_the_mean_over_heads_and_rows(scene):
    attention, tokens, rows, valid = scene
    mean = attention.row_mean(tokens, rows)
    for sample, chosen in enumerate(CHOSEN):
        maps = [literal(attention.query, attention.key, valid, sample, head, row) for head in range(HEADS) for row in chosen]
        expected = [sum(whole[column] for whole in maps) / max(len(maps), 1) for column in VISUAL[sample]]
        expected += [0.0] * (4 - len(expected))
        torch.testing.assert_close(mean[sample], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_the_last_real_row(scene):
    attention, tokens, _, valid = scene
    mean = attention.last_token_mean(tokens)
    for sample in range(BATCH):
        last = max(row for row in range(LENGTH) if valid[sample, row])
        maps = [literal(attention.query, attention.key, valid, sample, head, last) for head in range(HEADS)]
        expected = [sum(whole[column] for whole in maps) / HEADS for column in VISUAL[sample]]
        expected += [0.0] * (4 - len(expected))
        torch.testing.assert_close(mean[sample], torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert attention.macs == int(valid.sum()) * HEADS * WIDTH
