"""`Composed`: what it takes, what it refuses, and that each of its pruners has a place of its own."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from baselines.before_decoder.fastervlm import FasterVLM
from baselines.controls.random_pruning import Random
from baselines.controls.uniform import Uniform
from baselines.in_tower.tome import ToMe
from fitprune import Composed, FitPrune, FitPruneError, Pruner, Recipe, RecipeError, Selection
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.pruners import Coarse

pytestmark = pytest.mark.releases
RECIPE = Recipe([3, 5, 4], 18)


@dataclass
class Noting(Pruner):
    """Keeps the first `keep` of what it sees before the first layer, and notes what it is shown."""

    name: ClassVar[str] = "noting"
    keep: int = 99
    made: bool = False
    seen: list = field(default_factory=list)

    def observed_layers(self, layers):
        return [1]

    def before_layer(self, layer, tokens):
        assert "noting" not in tokens.memory or tokens.memory["noting"] is self
        tokens.memory["noting"] = self
        self.seen.append((layer, tokens.original.tolist(), tokens.total.tolist(), tokens.context.visual_tokens.tolist()))
        if layer == 0:
            tokens.carried["number"] = tokens.spread(tokens.original.float() + 1)
            rank = torch.arange(tokens.position.shape[1]).expand_as(tokens.position)
            return tokens.present & (rank < self.keep)
        return None

    def after_attention(self, layer, tokens, attention):
        tokens.spend(100)
        attention.spent.append(7)
        self.attention = attention
        self.carried = tokens.columns(tokens.carried["number"]) - 1


def test_each_has_its_own_memory_and_counts_what_is_left_to_it():
    model = build("llama", 3)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, ["image", 1, "image", 2], seed=1)])
    first, second = Noting(10), Noting(4)
    with torch.no_grad(), Composed([first, Uniform(0.5), second])(model) as trace:
        model(**inputs)
    assert trace.visual_tokens.tolist() == [36, 72]
    assert first.seen[0][2:] == ([36, 72], [36, 72])
    assert second.seen[0] == (0, [[0, 1, 2, 3, 4]] * 2, [5, 5], [36, 72])
    # Later, too, it numbers what it began with; the trace has the prompt's own numbers.
    assert second.seen[1] == (1, [[0, 1, 2, 3]] * 2, [5, 5], [36, 72])
    assert kept(trace) == [[0, 2, 4, 6]] * 3
    assert first.seen[1][1] == [[0, 2, 4, 6]] * 2
    # A row's number stays with the row through what others drop.
    assert first.carried.tolist() == [[0, 2, 4, 6]] * 2
    assert second.carried.tolist() == [[0, 1, 2, 3]] * 2
    # One attention, shown to both; what each spends is added up, and the attention's own part once.
    assert first.attention is second.attention
    assert trace.scoring_macs == [0, 2 * 100 + 2 * 7, 0]


def test_one_object_twice_has_two_memories():
    model = build("llama", 3)
    half = Uniform(0.5)
    with torch.no_grad(), Composed([half, half])(model) as trace:
        model(**prompt(model, [3, "image", 5]))
    assert kept(trace) == [list(range(0, 36, 4))] * 3


def test_what_the_first_drops_is_not_shown_to_the_second_where_nothing_is_left():
    model = build("llama", 3)
    never = Noting()
    with torch.no_grad(), Composed([Random(1.0), never])(model) as trace:
        tokens = new_tokens(model, prompt(model, [3, "image", 5]), 3)
    assert kept(trace) == [[]] * 3
    assert never.seen == []
    assert tokens.shape == (1, 3)


def test_text_only_prompts_and_rows_pass_untouched():
    model = build("llama", 3)
    text = prompt(model, [9])
    with torch.no_grad():
        plain = model(**text).logits
        with Composed([Random(0.5), FitPrune(RECIPE)])(model):
            assert torch.equal(model(**text).logits, plain)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Composed([]), "at least one pruner"),
        (lambda: Composed([Random(0.5), "fastv"]), "takes pruners, not 'fastv'"),
        (lambda: Composed([Random]), "takes pruners, not <class"),
        (lambda: Composed([ToMe(2), Random(0.5), Coarse()]), "^tome and coarse change what runs in the vision tower"),
        (
            lambda: Composed([Random(0.5, newlines="pruned"), Uniform(0.5)]),
            r"newline tokens alike \(random: pruned, uniform: kept\); pass newlines=",
        ),
    ],
)
def test_what_cannot_work_together(make, said):
    with pytest.raises(FitPruneError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pruner", "said"),
    [
        (Composed([Random(0.5), FitPrune(Recipe([1, 2], 36))]), "this recipe has 2 layers; the model has 3"),
        (Composed([Random(0.5), Uniform(0.5)], positions="moved"), "positions must be one of kept, repacked, not 'moved'"),
        (Composed([Random(0.5), Uniform(0.5)], newlines="lost"), "newlines must be one of kept, pruned, not 'lost'"),
        (Composed([Random(0.5), FasterVLM(12, layer=9, visual_tokens=36)]), "reads the attention of tower layer 9"),
    ],
)
def test_what_one_of_them_refuses_is_refused_before_work(pruner, said):
    model = build("llama", 3)
    with pytest.raises((FitPruneError, RecipeError), match=said), pruner(model):
        pass
    assert not [module for module in model.modules() if "forward" in vars(module)]


def test_newlines_and_positions_for_all():
    pruner = Composed([Random(0.5), FasterVLM(12)], positions="repacked", newlines="pruned")
    assert [(each.positions, each.newlines) for each in pruner.members] == [("repacked", "pruned")] * 2
    own = Composed([Random(0.5), FasterVLM(12)])
    assert [each.positions for each in own.members] == ["kept", "repacked"]
    assert (own.positions, own.newlines, own.name) == ("own", "kept", "random+fastervlm")


def test_decoding_counts_on_from_the_last_repacked_cut():
    """Ids as the rotary embedding gets them: from 0 over what the repacked cut left, with gaps where others drop later."""
    model = build("llama", 3)
    seen = []
    hook = model.get_decoder().rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[1] if len(args) > 1 else kwargs["position_ids"])[0].tolist()),
        with_kwargs=True,
    )
    with torch.no_grad(), Composed([Random(0.5, positions="repacked"), FitPrune(RECIPE)])(model) as trace:
        new_tokens(model, prompt(model, [3, "image", 5]), 3)
    hook.remove()
    assert [len(layer) for layer in kept(trace)] == [15, 10, 6]
    assert seen == [list(range(44)), list(range(26)), [26], [27]]


def test_a_repacked_cut_that_drops_nothing_still_closes_gaps():
    """Else a sample's ids would depend on whether another one of its batch loses tokens there."""
    model = build("llama", 4)

    @dataclass
    class Late(Pruner):
        name: ClassVar[str] = "late"

        def before_layer(self, layer, tokens):
            if layer != 2:
                return None
            return tokens.keep_highest(tokens.original.float(), torch.where(tokens.total > 36, 20, 36))

    pruner = Composed([Uniform(0.5), FitPrune(Recipe([2, 2, 0, 0], 18)), Late(positions="repacked")])
    samples = [prompt(model, [3, "image", 5]), prompt(model, [2, "image", 1, "image", 4], seed=1)]
    with torch.no_grad(), pruner(model):
        together = new_tokens(model, batch(samples), 4).tolist()
        logits = model(**batch(samples)).logits
        for row, sample in enumerate(samples):
            assert new_tokens(model, sample, 4).tolist() == together[row : row + 1]
            torch.testing.assert_close(model(**sample).logits[0, -1], logits[row, -1], rtol=1e-4, atol=1e-4)
    seen = []
    hook = model.get_decoder().rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[1] if len(args) > 1 else kwargs["position_ids"])[0].tolist()),
        with_kwargs=True,
    )
    with torch.no_grad(), pruner(model):
        model(**samples[0])
    hook.remove()
    assert seen == [list(range(44)), list(range(22))]


@torch.no_grad()
def test_what_runs_in_the_tower_comes_first_wherever_it_stands():
    model = build("llama", 3)
    inputs, runs = prompt(model, [3, "image", 5]), []
    for pruners in ([ToMe([7, 5]), Random(0.5)], [Random(0.5), ToMe([7, 5])]):
        with Composed(pruners)(model) as trace:
            runs.append((model(**inputs).logits, kept(trace), new_tokens(model, inputs, 3).tolist()))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]
    assert len(runs[0][1][0]) == 12


@dataclass
class Summing(Noting):
    """Sends its second token on as one that stands for none."""

    def before_layer(self, layer, tokens):
        super().before_layer(layer, tokens)
        index = torch.tensor([[1, 3]])
        return Selection(index, made=torch.tensor([[True, False]])) if layer == 0 else None


def test_a_row_that_stands_for_no_token_has_no_number_to_its_maker_and_one_to_the_next():
    model = build("llama", 3)
    maker, later = Summing(), Noting()
    with torch.no_grad(), Composed([Uniform(0.5), maker, later])(model) as trace:
        model(**prompt(model, [3, "image", 5]))
    assert kept(trace) == [[6]] * 3
    assert maker.seen[1][1] == [[-1, 3]]
    assert later.seen[1][1] == [[0, 1]]
    assert [int(count) for count in trace.visual_in] == [2, 2, 2]
