"""What a printed budget is for each method, against counts by hand."""

import pytest

from fitprune import BudgetError, FitPruneError
from harness.models.registry import find_model
from harness.models.shipped import transformers_config
from harness.paper.budgets import converted
from harness.pruners.solve import solve
from harness.published.tables import Setting, find_table

ONE = find_table("restore-1")  # of llava-1.5-7b, 576 tokens
NEXT = find_table("eadp-2")  # of llava-next-7b, 2880
FULL = {"llava-1.5-7b": 576, "llava-tiny": 144, "llava-next-7b": 2880}


def budget_of(name, setting, table=ONE, model="llava-1.5-7b"):
    config, tokens = transformers_config(find_model(model)), FULL[model]
    budget = converted(table, setting, name, model, config, tokens)
    if budget.pruner is not None:
        # What a cell of this reduction gets is the very same pruner.
        assert solve(name, budget.reduction, config, visual_tokens=tokens) == budget.pruner
    return budget


def pruner_of(name, tokens, table=ONE, model="llava-1.5-7b"):
    return budget_of(name, Setting(f"{tokens} tokens", tokens), table, model).pruner


@pytest.mark.parametrize(
    ("tokens", "kept"), [(192, 166), *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in ((128, 98), (64, 30)))]
)
def test_fastv_keeps_what_gives_the_mean_over_32_layers(tokens, kept):
    """2 layers of 576 tokens and 30 of k: (2·576 + 30·k) / 32 = 192 for k = 166.4."""
    assert round((tokens * 32 - 2 * 576) / 30) == kept
    pruner = pruner_of("fastv", tokens)
    assert (pruner.k, int(576 * (1 - pruner.r) + 1e-9)) == (2, kept)


def test_pyramiddrop_reaches_192_in_the_mean_and_not_128():
    """8 layers each of 576, 576·λ, 576·λ², 576·λ³: 1 + λ + λ² + λ³ = 4 · 192 / 576; the first eight alone are 144."""
    pruner = pruner_of("pyramiddrop", 192)
    counts = [576, *(int(576 * ratio) for ratio in pruner.image_token_ratio_list)]
    assert pruner.layer_list == (8, 16, 24)
    assert sum(counts) / 4 == pytest.approx(192, abs=0.5)
    assert 1 + sum(pruner.image_token_ratio_list) == pytest.approx(4 / 3, abs=0.01)
    with pytest.raises(BudgetError, match=r"PyramidDrop cannot save 77\.8%"):
        pruner_of("pyramiddrop", 128)


@pytest.mark.parametrize(("tokens", "counts"), [(192, (300, 200, 110)), (128, (303, 110, 36)), (64, (66, 30, 17))])
def test_sparsevlm_takes_its_authors_lists(tokens, counts):
    pruner = pruner_of("sparsevlm", tokens)
    assert (pruner.retained_tokens, pruner.sparse_token_list(pruner.retained_tokens)) == (tokens, counts)


def test_sparsevlm_on_another_model_takes_the_same_list():
    """144 of 576 tokens are to 32 of 128: the list's shares scale by themselves."""
    assert pruner_of("sparsevlm", 128, model="llava-tiny").retained_tokens == 128


def test_dart_takes_its_authors_parameter():
    assert pruner_of("dart", 128).max_num_trunction == 128
    assert pruner_of("dart", 128, model="llava-tiny").max_num_trunction == 32


@pytest.mark.parametrize(("tokens", "dominant", "contextual"), [(192, 162, 30), (128, 108, 20), (64, 54, 10)])
def test_visionzip_has_its_authors_settings(tokens, dominant, contextual):
    pruner = pruner_of("visionzip", tokens)
    assert (pruner.dominant, pruner.contextual) == (dominant, contextual)


@pytest.mark.parametrize("tokens", [640, *(pytest.param(tokens, marks=pytest.mark.exhaustive) for tokens in (320, 160))])
def test_next_counts_of_2880(tokens):
    assert round(2880 * pruner_of("divprune", tokens, NEXT, "llava-next-7b").subset_ratio) == tokens


def test_visionzip_of_2880_keeps_its_ratio():
    pruner = pruner_of("visionzip", 320, NEXT, "llava-next-7b")
    assert (pruner.dominant, pruner.contextual) == (270, 50)


def test_sparsevlm_of_2880_takes_the_list_of_the_same_share():
    assert pruner_of("sparsevlm", 640, NEXT, "llava-next-7b").retained_tokens == 128


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vispruner", lambda pruner: pruner.visual_token_num),
        ("scope", lambda pruner: pruner.num_token),
        ("hired", lambda pruner: int(576 * pruner.token_budget_rate + 1e-9)),
        ("tome", lambda pruner: 576 - sum(pruner.r)),
        ("random", lambda pruner: round(576 * (1 - pruner.ratio))),
    ],
)
def test_methods_before_the_decoder_let_so_many_tokens_in(name, count):
    assert count(pruner_of(name, 64)) == 64


def test_a_share_of_the_tokens_that_is_pruned():
    assert budget_of("fastervlm", Setting("75% pruned", pruned=0.75)).pruner.visual_token_num == 144


def macs(tokens, hidden=4096, inner=11008):
    """Of a layer of a 7B decoder, written out."""
    return 4 * tokens * hidden**2 + 2 * tokens**2 * hidden + 3 * tokens * hidden * inner


def test_fitprune_is_fitted_for_the_flops_of_so_many_tokens():
    assert budget_of("fitprune", Setting("192 tokens", 192)).reduction == pytest.approx(1 - macs(192) / macs(576), abs=1e-4)


def test_fitprune_at_4_4_of_8_5_tflops():
    """Of 3.82 T multiply-accumulates of the visual tokens, 2.05 T are saved."""
    asked = budget_of("fitprune", Setting("4.4 of 8.5 TFLOPs", tflops=(4.4, 8.5)), find_table("ficoco"))
    assert asked.reduction == pytest.approx(2.05e12 / (32 * macs(576)), abs=1e-4)
    # The dense figure is right: 640 tokens, 8.50 T FLOPs.
    assert 2 * 32 * macs(640) == pytest.approx(8.504e12, rel=1e-3)


def test_fitprune_takes_its_authors_recipe_where_they_have_one():
    own = Setting("reduction 0.9", own=0.9)
    assert budget_of("fitprune", own).recipe == "published:llava-1.5-7b@90"
    assert budget_of("fitprune", own).reduction is None
    assert budget_of("fitprune", own, model="llava-tiny").reduction == 0.9


def test_a_count_that_no_parameter_gives_is_refused():
    with pytest.raises(BudgetError, match="tome leaves 18 of 144 tokens here, and not the 16 asked"):
        pruner_of("tome", 64, model="llava-tiny")


def test_a_setting_that_is_fitprunes_says_nothing_to_others():
    with pytest.raises(FitPruneError, match=r"'reduction 0\.9' says nothing that fastv can be asked for"):
        budget_of("fastv", Setting("reduction 0.9", own=0.9))


def test_what_a_setting_was_taken_for_is_said():
    said = budget_of("fastv", Setting("192 tokens", 192), model="llava-tiny").words
    assert said == "192 tokens are taken as 48 tokens in the mean over the decoder's layers: FastV(k=2, r=0.8889)"
