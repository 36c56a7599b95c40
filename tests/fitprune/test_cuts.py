"""Where tokens stand before and after a cut, against literal loops over lists; no model is needed."""

import random

import pytest
import torch

from fitprune import FitPruneError, Selection
from fitprune.engine.cuts import plan_cut
from fitprune.interface.layout import prompt_layout

WIDTH = 3


class Sample:
    """One sequence as a list of rows: ("pad",), ("text", after), ("visual", original)."""

    def __init__(self, rows):
        self.rows = rows

    def of(self, kind):
        return [row for row, (name, *_) in enumerate(self.rows) if name == kind]


def drawn(generator, padded):
    """Samples of a batch, equally long."""
    samples = []
    for _ in range(4):
        before, visual, after = (generator.randint(0, 3), generator.randint(0, 6), generator.randint(1, 4))
        rows = [("text", False)] * before + [("visual", index) for index in range(visual)]
        samples.append(rows + [("text", visual > 0)] * after)
    longest = max(map(len, samples))
    if not padded:
        samples = [samples[0]] * len(samples)
        longest = len(samples[0])
    return [Sample([("pad",)] * (longest - len(rows)) + rows) for rows in samples]


def layout_of(samples):
    visual = torch.tensor([[name == "visual" for name, *_ in sample.rows] for sample in samples])
    real = torch.tensor([[name != "pad" for name, *_ in sample.rows] for sample in samples])
    return prompt_layout(visual, visual, real)


def check(layout, samples, totals):
    """Every attribute of a layout against the samples' rows."""
    n = max(len(sample.of("visual")) for sample in samples)
    length = len(samples[0].rows)
    assert layout.shape == (len(samples), length)
    assert layout.empty == (n == 0)
    assert layout.total.tolist() == totals
    firsts = [sample.of("visual")[0] for sample in samples if sample.of("visual")]
    assert layout.first_row == min(firsts, default=length)
    padded = any(sample.of("pad") for sample in samples)
    assert padded or layout.valid is None or bool(layout.valid.all())
    ids, last = layout.position_ids().tolist(), layout.last_row().tolist()
    for number, sample in enumerate(samples):
        places = sample.of("visual")
        names = [sample.rows[row][1] for row in places]
        assert layout.position[number].tolist() == places + [-1] * (n - len(places))
        assert layout.original[number].tolist() == names + [-1] * (n - len(places))
        known = sorted(name for name in names if name >= 0)
        kept = layout.kept[number].tolist()
        assert kept == known + [-1] * (len(kept) - len(known))
        assert int(layout.count[number]) == len(places)
        assert int(layout.removed[number]) == totals[number] - len(places)
        assert layout.row_mask()[number].tolist() == [name == "visual" for name, *_ in sample.rows]
        assert layout.text_after[number].tolist() == [row == ("text", True) for row in sample.rows]
        if layout.valid is not None:
            assert layout.valid[number].tolist() == [name != "pad" for name, *_ in sample.rows]
        reals = [row for row in range(length) if sample.rows[row][0] != "pad"]
        assert [ids[number][row] for row in reals] == list(range(len(reals)))
        assert last[number] == reals[-1]
        values = torch.arange(10.0, 10 + length)
        picked = layout.columns(values.expand(len(samples), -1))[number].tolist()
        assert picked == [10 + row for row in places] + [0] * (n - len(places))


def cut_lists(samples, states, chosen, hidden=None, made=None):
    """The literal rule: per sample, the columns in `chosen` stay, in that order; padding goes to the left."""
    left, values = [], []
    for number, (sample, state) in enumerate(zip(samples, states, strict=True)):
        places = sample.of("visual")
        named = [places[column] for column in chosen[number]]
        slots = iter(range(len(named)))
        rows, state_after = [], []
        for row, entry in enumerate(sample.rows):
            if entry[0] == "pad" or (entry[0] == "visual" and row not in named):
                continue
            if entry[0] == "text":
                rows.append(entry)
                state_after.append(state[row])
                continue
            slot = next(slots)
            source = named[slot]
            is_made = made is not None and bool(made[number, slot])
            rows.append(("visual", -1 if is_made else sample.rows[source][1]))
            state_after.append(state[source] if hidden is None else hidden[number, slot].tolist())
        left.append(rows)
        values.append(state_after)
    longest = max(map(len, left))
    padded = [[("pad",)] * (longest - len(rows)) + rows for rows in left]
    return [Sample(rows) for rows in padded], [[None] * (longest - len(state)) + state for state in values]


def states_equal(hidden, states):
    for row, state in zip(hidden.tolist(), states, strict=True):
        for found, expected in zip(row, state, strict=True):
            assert expected is None or found == expected


def start(seed, padded):
    generator = random.Random(seed)
    samples = drawn(generator, padded)
    torch.manual_seed(seed)
    hidden = torch.randn(len(samples), len(samples[0].rows), WIDTH)
    return generator, samples, layout_of(samples), hidden


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_two_cuts_by_masks(seed, padded):
    generator, samples, layout, hidden = start(seed, padded)
    totals = [len(sample.of("visual")) for sample in samples]
    check(layout, samples, totals)
    states = hidden.tolist()
    for _ in range(2):
        chosen = [[column for column in range(len(s.of("visual"))) if generator.random() < 0.6] for s in samples]
        mask = torch.zeros(layout.position.shape, dtype=torch.bool)
        for number, columns in enumerate(chosen):
            mask[number, columns] = True
        # What a method says of columns without a token does not count.
        cut = plan_cut(layout, mask | ~layout.present)
        if all(len(columns) == len(s.of("visual")) for columns, s in zip(chosen, samples, strict=True)):
            assert cut is None
            continue
        samples, states = cut_lists(samples, states, chosen)
        # The longest sample decides the new length; the literal rule and the engine agree on it.
        hidden = cut.shorten(hidden)
        assert hidden.shape[1] == cut.rows.shape[1] == cut.layout.shape[1]
        assert hidden.shape[1] == len(samples[0].rows)
        layout = cut.layout
        check(layout, samples, totals)
        states_equal(hidden, states)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_a_selection_in_another_order(seed, merged):
    generator, samples, layout, hidden = start(seed, padded=True)
    totals = [len(sample.of("visual")) for sample in samples]
    chosen = []
    for sample in samples:
        columns = [column for column in range(len(sample.of("visual"))) if generator.random() < 0.7]
        generator.shuffle(columns)
        chosen.append(columns)
    most = max(map(len, chosen))
    index = torch.tensor([columns + [-1] * (most - len(columns)) for columns in chosen], dtype=torch.long)
    fresh = torch.randn(len(samples), most, WIDTH) if merged else None
    made = (torch.rand(len(samples), most) < 0.3) if merged else None
    cut = plan_cut(layout, Selection(index.view(len(samples), most), fresh, made))
    samples, states = cut_lists(samples, hidden.tolist(), chosen, fresh, made)
    hidden = cut.shorten(hidden)
    check(cut.layout, samples, totals)
    states_equal(hidden, states)
    assert cut.layout.reordered


def test_a_selection_of_all_in_their_order_still_cuts():
    """It may bring new hidden states."""
    layout = layout_of([Sample([("text", False), ("visual", 0), ("visual", 1), ("text", True)])])
    cut = plan_cut(layout, Selection(torch.tensor([[0, 1]]), torch.full((1, 2, WIDTH), 7.0)))
    assert cut.rows.tolist() == [[0, 1, 2, 3]]
    assert cut.shorten(torch.zeros(1, 4, WIDTH))[0, :, 0].tolist() == [0, 7, 7, 0]


@pytest.mark.parametrize("index", [[[0, 0]], [[0, 2]]])
def test_a_selection_of_what_is_not_there(index):
    rows = [("visual", 0), ("visual", 1), ("text", True)]
    both = [Sample([*rows[:2], ("visual", 2), rows[2]]), Sample([("pad",), *rows])]
    with pytest.raises(FitPruneError, match="twice, or one without"):
        plan_cut(layout_of(both), Selection(torch.tensor([[0, 1], *index])))


@pytest.mark.parametrize("seed", range(6))
def test_keeping_the_highest(seed):
    _, samples, layout, _ = start(seed, padded=True)
    score = torch.randint(0, 3, layout.position.shape).float()
    keep = torch.tensor([0, 1, 2, 9])
    found = layout.keep_highest(score, keep)
    for number, sample in enumerate(samples):
        columns = list(range(len(sample.of("visual"))))
        columns.sort(key=lambda column, row=number: (float(score[row, column]), column))
        best = set(columns[max(len(columns) - int(keep[number]), 0) :])
        assert found[number].tolist() == [column in best for column in range(score.shape[1])]
