"""SparseVLM and SparseVLM+ against their literal rules: raters, stages, recycling."""

import pytest
import torch

from baselines.between_layers.sparsevlm import SparseVLM, SparseVLMPlus, raters, recycle
from baselines.shared.clustering import density_peaks, group_means
from fitprune import BudgetError, FitPruneError
from tests.reference import sparsevlm as reference_rules
from tests.reference.between import run
from tests.support.models import DECODERS, batch, build, kept, new_tokens, prompt, saved
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 6], ["image", 2], [4, "image", 1, "image", 7], [9], [2, "image", 1]]
STAGES = (0, 1, 2)
# A stage's gap in scores, densities or distances below this could be decided otherwise in float32.
CLEAR = 1e-5


# Of 576 visual tokens, as the authors' code has them; the later version counts 14 of 32 heads.
COUNTS = {
    (SparseVLM, 192): (300, 200, 110),
    (SparseVLM, 128): (303, 110, 36),
    (SparseVLMPlus, 192): (300, 200, 118),
    (SparseVLMPlus, 128): (238, 108, 60),
}


def literal_rule(cls, name):
    return reference_rules.Rule(COUNTS[cls, name], STAGES, 14 if cls is SparseVLMPlus else None)


@pytest.mark.parametrize("seed", range(8))
def test_raters_on_random_embeddings(seed):
    generator = torch.Generator().manual_seed(seed)
    visual, text = torch.randn(3, 9, 6, generator=generator), torch.randn(3, 12, 6, generator=generator)
    present, real = torch.ones(3, 9, dtype=torch.bool), torch.ones(3, 12, dtype=torch.bool)
    present[1, 5:], real[1, 7:], real[2, 1:] = False, False, False
    chosen = raters(visual, present, text, real)
    for sample in range(3):
        expected = reference_rules.raters(visual[sample][present[sample]].double(), text[sample][real[sample]].double())
        assert chosen[sample].nonzero().flatten().tolist() == expected
    assert chosen[2].sum() == 1  # a single word rates
    nothing = torch.zeros_like(real)
    assert not raters(visual, present, text, nothing).any()


@pytest.mark.parametrize("seed", range(8))
def test_clusters_on_random_tokens(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 45, 10, generator=generator)
    sizes, clusters = torch.tensor([45, 31, 7, 1]), torch.tensor([5, 4, 1, 1])
    real = torch.arange(45) < sizes[:, None]
    peaks, group = density_peaks(x, real, clusters)
    means = group_means(x, group, peaks.shape[1])
    for sample in range(4):
        own = x[sample, : sizes[sample]]
        centres, cluster_of, gap = reference_rules.cluster(own.double(), int(clusters[sample]))
        assert gap > CLEAR
        assert peaks[sample].tolist() == centres + [-1] * (5 - len(centres))
        assert group[sample].tolist() == cluster_of + [-1] * (45 - len(cluster_of))
        for number in range(len(centres)):
            members = [own[a] for a in range(len(own)) if cluster_of[a] == number]
            torch.testing.assert_close(means[sample, number], sum(members) / len(members), rtol=0, atol=1e-5)


def test_equal_tokens_fall_to_the_earlier():
    peaks, group = density_peaks(torch.zeros(1, 6, 3), torch.ones(1, 6, dtype=torch.bool), torch.tensor([2]))
    assert peaks.tolist() == [[0, 1]]
    assert group.tolist() == [[0, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("seed", range(8))
def test_recycling_on_random_scores(seed):
    generator = torch.Generator().manual_seed(seed)
    n = 120
    score, hidden = torch.rand(5, n, generator=generator), torch.randn(5, n, 8, generator=generator)
    present = torch.arange(n) < torch.tensor([120, 61, 2, 1, 0])[:, None]
    keep = torch.tensor([30, 100, 1, 5, 4])
    index, going, macs = recycle(score, present, hidden, keep)
    spent = 0
    for sample in range(4):
        count = int(present[sample].sum())
        values, states = score[sample, :count].double().tolist(), hidden[sample, :count].double()
        kept_, centres, means, gap = reference_rules.recycle(values, states, int(keep[sample]))
        assert gap > CLEAR
        names = kept_ + centres
        assert index[sample].tolist() == names + [-1] * (index.shape[1] - len(names))
        torch.testing.assert_close(going[sample, : len(kept_)], hidden[sample, kept_], rtol=0, atol=0)
        torch.testing.assert_close(going[sample, len(kept_) : len(names)].double(), means, rtol=0, atol=1e-5)
        merged = int((count - len(kept_)) * 0.3) + 1
        spent += merged * (merged + len(centres)) * 8
    assert index[4].tolist() == [-1] * index.shape[1]
    assert macs == spent


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("cls", [SparseVLM, SparseVLMPlus])
@pytest.mark.parametrize("kind", DECODERS)
def test_against_the_literal_rule(kind, cls):
    model = build(kind, 4, seed=2, patch=2)
    inputs = prompt(model, [3, "image", 6], seed=3)
    pruner = cls(192, STAGES)
    literal = literal_rule(cls, 192)
    expected = run(model, inputs, literal, 5, repack=cls is SparseVLM)
    assert min(literal.gaps) > CLEAR
    with torch.no_grad(), pruner(model) as trace:
        body = model.model(**inputs)
        lengths = [cache_of(body).get_seq_length(layer) for layer in range(4)]
        logits = model(**inputs).logits[0]
        tokens = new_tokens(model, inputs, 5)[0].tolist()
    assert kept(trace) == expected.kept
    assert lengths == expected.kv_lengths
    assert float((logits - expected.logits).abs().max()) < 1e-4
    assert tokens == expected.tokens


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cls", [SparseVLM, SparseVLMPlus])
def test_in_a_batch(cls, side):
    model = build("llama-gqa", 4, seed=2)
    samples = [prompt(model, one, seed) for seed, one in enumerate(PARTS)]
    together = batch(samples, side)
    pruner = cls(128, STAGES)
    with torch.no_grad(), pruner(model) as trace:
        model(**together)
        tokens = new_tokens(model, together).tolist() if side == "left" else None
    for row, sample in enumerate(samples):
        literal = literal_rule(cls, 128)
        expected = run(model, sample, literal, 6, repack=cls is SparseVLM)
        assert min([1, *literal.gaps]) > CLEAR
        assert kept(trace, row) == expected.kept
        assert [int(count[row]) for count in trace.visual_in] == [len(indices) for indices in expected.kept]
        if tokens is not None:
            assert tokens[row] == expected.tokens


@pytest.mark.parametrize("cls", [SparseVLM, SparseVLMPlus])
def test_an_image_at_the_end_is_rated_by_the_last_token(cls):
    model = build("llama", 4, seed=2)
    inputs, pruner = prompt(model, [5, "image"], seed=3), cls(192, STAGES)
    literal = literal_rule(cls, 192)
    expected = run(model, inputs, literal, repack=cls is SparseVLM)
    assert min(literal.gaps) > CLEAR
    with torch.no_grad(), pruner(model) as trace:
        model(**inputs)
    assert kept(trace) == expected.kept


def test_the_authors_counts():
    assert SparseVLM.sparse_token_list(192) == (300, 200, 110)
    assert SparseVLM.sparse_token_list(128) == (303, 110, 36)
    assert SparseVLM.sparse_token_list(64) == (66, 30, 17)
    assert SparseVLMPlus.sparse_token_list(96) == (246, 54, 28)
    assert SparseVLM.sparse_token_list(32) == (33, 15, 8.5)
    assert SparseVLM.sparse_token_list(576) == (576, 576, 576)
    assert (SparseVLM().positions, SparseVLMPlus().positions) == ("repacked", "kept")
    assert SparseVLM().params()["sparse_token_list"] == [300, 200, 110]


def test_the_authors_layer_averages():
    """On LLaVA-1.5-7B, what the three names come to when the inputs of all 32 layers are averaged (SparseVLMs#12)."""
    model = build("llama", 32, patch=1, hidden=8, heads=4, seed=1)
    inputs = prompt(model, [3, "image", 6], seed=3)
    for name, average in ((192, 206), (128, 145), (64, 82)):
        with torch.no_grad(), SparseVLM(name)(model) as trace:
            model(**inputs)
        assert round(sum(int(count) for count in trace.visual_in) / 32) == average


def test_products_are_counted():
    model = build("llama", 4, seed=2)
    inputs = prompt(model, [3, "image", 6], seed=3)
    plus = SparseVLMPlus(192, STAGES)
    literal = literal_rule(SparseVLMPlus, 192)
    expected = run(model, inputs, literal)
    rating, present = len(literal.raters), [len(indices) for indices in expected.kept]
    with torch.no_grad(), plus(model) as trace:
        model(**inputs)
    rows = [rating * ((9 + n) * 32 + n * 8) for n in present[:3]]
    assert trace.scoring_macs == [36 * 6 * 32 + rows[0], rows[1], rows[2], 0]


@pytest.mark.parametrize("cls", [SparseVLM, SparseVLMPlus])
def test_bfloat16_and_text_prompts(cls):
    model = build("llama-gqa", 4, seed=2, dtype=torch.bfloat16)
    text = prompt(model, [9])
    with torch.no_grad():
        dense = model(**text).logits
        with cls(128, STAGES)(model) as trace:
            logits = model(**prompt(model, [3, "image", 6])).logits
            counts = [int(count) for count in trace.visual_in]
            assert bool(logits.isfinite().all())
            assert torch.equal(model(**text).logits, dense)
    # Of 576, 303, 110 and 36 stay, and here a cluster each time; of 576, 238, 108 and 60.
    assert counts == ([36, 20, 8, 3] if cls is SparseVLM else [36, 15, 7, 4])


@pytest.mark.parametrize("reduction", [0.1, 0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("cls", [SparseVLM, SparseVLMPlus])
def test_for_reduction(cls, reduction):
    model = build("qwen2", 8, patch=2, hidden=64)
    pruner = cls.for_reduction(model.config, reduction)
    assert pruner.pruning_loc == (0, 1, 3)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [20, "image", 24]))
    sizes = {"hidden_size": 64, "intermediate_size": 136, "kv_size": 32}
    assert saved(trace, 144, **sizes) == pytest.approx(reduction, abs=0.01)


def test_a_budget_out_of_reach_says_what_is_in_reach():
    config = build("llama", 8, patch=2).config
    with pytest.raises(BudgetError, match=r"it reaches 8\d\.\d%") as error:
        SparseVLM.for_reduction(config, 0.95)
    assert "\n" not in str(error.value)
    with pytest.raises(BudgetError, match="no room"):
        SparseVLM.for_reduction(build("llama", 3).config, 0.3)


def test_the_authors_stages_at_other_depths():
    for layers, stages in ((32, (2, 6, 15)), (40, (3, 8, 19)), (28, (2, 5, 13)), (8, (0, 1, 3)), (4, (0, 1, 2))):
        config = build("llama", layers, hidden=8, heads=4, patch=2).config
        assert SparseVLM.for_reduction(config, 0.3).pruning_loc == stages


@pytest.mark.parametrize(
    "options",
    [{"retained_tokens": -1}, {"retained_tokens": 577}, {"pruning_loc": (2, 6)}, {"pruning_loc": (2, 2, 6)}, {"heads": 0}],
)
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError):
        SparseVLMPlus(**options)


def test_a_model_that_is_too_shallow():
    with pytest.raises(FitPruneError, match="4 layers"), SparseVLM()(build("llama", 4)):
        pass
