"""What a KV cache's layers hide, against lists, over more decoded tokens than there is room for at once."""

import torch

from fitprune.models.kv_cache import ROOM, CacheState, HeldRows

PROMPT = [[False, False, True, True, True, True], [True] * 6]


def state_of_layers():
    """Two layers hold the prompt, two of them fewer rows, one of these without padding."""
    whole, shorter = HeldRows(6, torch.tensor(PROMPT)), HeldRows(4, torch.tensor(PROMPT)[:, :4])
    state = CacheState(whole, text_from=4)
    state.layers = [whole, whole, shorter, HeldRows(3)]
    return state


def check(state, rows):
    """`rows`: per sample, what the first layer is to show."""
    for layer in (0, 1):
        assert state.valid(layer).tolist() == rows
    assert state.valid(2).tolist() == [row[:4] + row[6:] for row in rows]
    assert state.valid(3) is None
    assert state.layers[0] is state.layers[1]


def test_decoded_tokens_are_seen_by_all_layers():
    state, rows = state_of_layers(), [list(row) for row in PROMPT]
    for _ in range(2 * ROOM + 3):
        state.extend(None, 1)
        rows = [[*row, True] for row in rows]
        check(state, rows)
    state.crop(ROOM + 9)
    rows = [row[: -ROOM - 9] for row in rows]
    check(state, rows)
    state.rearrange(lambda part: part[[1, 0, 1]])
    rows = [rows[1], rows[0], rows[1]]
    state.extend(None, 4)
    rows = [[*row, *[True] * 4] for row in rows]
    check(state, rows)
    state.crop(len(rows[0]) - 5)
    # The last token of the prompt leaves every layer.
    assert state.valid(0).tolist() == [row[:5] for row in rows]
    assert state.valid(2).tolist() == [row[:3] for row in rows]


def test_padding_among_later_tokens_is_hidden():
    state, rows = state_of_layers(), [list(row) for row in PROMPT]
    state.extend(None, 2)
    check(state, [[*row, True, True] for row in rows])
    mask = torch.tensor([[*rows[0], True, True, True], [*rows[1], True, True, False]])
    state.extend(mask, 1)
    assert state.valid(0).tolist() == mask.tolist()
    assert state.valid(2).tolist() == [row[:4] + row[6:] for row in mask.tolist()]
    assert state.valid(3).tolist() == [[True] * 6, [True] * 5 + [False]]
