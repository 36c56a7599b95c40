"""FitPrune against a literal, eager reference that was written from the published rule alone."""

import pytest
import torch

from fitprune import FitPrune, Recipe
from tests.reference.decoder import fitprune
from tests.support.models import DECODERS, build, kept, new_tokens, prompt, visual_tokens
from tests.support.releases import cache_of

pytestmark = [pytest.mark.releases, pytest.mark.releases_short]


def compare(model, inputs, drop, *, new=6, tolerance=5e-5):
    """One sample, package against reference: kept tokens, hidden states, logits, continuation, KV lengths."""
    images = len(inputs.get("pixel_values", []))
    expected = fitprune(model, inputs, drop, new)
    assert expected.closest > 1e-4, "the random model has a near-tie: choose another seed"
    recipe = Recipe(drop, max(images, 1) * visual_tokens(model))
    with torch.no_grad(), FitPrune(recipe)(model) as trace:
        body = model.model(**inputs)
        output = model(**inputs)
        tokens = new_tokens(model, inputs, new)[0].tolist()
    if images:
        assert kept(trace) == expected.kept
    lengths = [cache_of(output).get_seq_length(layer) for layer in range(len(drop))]
    assert lengths == expected.kv_lengths
    assert body.last_hidden_state.shape[1] == len(expected.hidden)
    assert float((body.last_hidden_state[0] - expected.hidden).abs().max()) < tolerance
    assert float((output.logits[0] - expected.logits).abs().max()) < tolerance
    assert tokens == expected.tokens
    return trace, expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", DECODERS)
def test_three_layers(kind, attention):
    model = build(kind, 3, attention=attention)
    compare(model, prompt(model, [3, "image", 5], seed=1), [9, 7, 12])


@pytest.mark.parametrize(
    "drop",
    [[0, 0, 0], [0, 10, 0], [30, 0, 50], [36, 0, 0], [35, 1, 1], [0, 0, 36], [40, 3, 0], [0, 0, 1]],
    ids=str,
)
def test_drops_of_nothing_of_all_and_of_more_than_is_left(drop):
    model = build("llama-gqa", 3, seed=2)
    compare(model, prompt(model, [2, "image", 4], seed=2), drop)


@pytest.mark.parametrize("layers", [1, 2, 16, 40])
def test_any_depth(layers):
    model = build("qwen2", layers, seed=3)
    compare(model, prompt(model, [2, "image", 4], seed=4), [(layer * 5 + 3) % 4 for layer in range(layers)])


@pytest.mark.parametrize(
    "parts",
    [
        ["image", 4],
        [1, "image", 1],
        [12, "image", 3],
        [3, "image", "image", 4],
        [3, "image", 5, "image", 4],
        ["image", 2, "image", 2, "image", 2],
    ],
    ids=str,
)
def test_places_and_numbers_of_images(parts):
    model = build("llama", 4, seed=5)
    n = 36 * parts.count("image")
    compare(model, prompt(model, parts, seed=8), [n // 4, 0, n // 3, n // 8])


def test_the_last_of_several_images_may_go_entirely():
    """The rows that count are those after the prompt's last image, also when that image's tokens have all gone."""
    model = build("llama", 6, seed=5)
    inputs = prompt(model, [3, "image", 5, "image", 4], seed=9)
    _, expected = compare(model, inputs, [30, 20, 12, 5, 3, 1])
    assert len(expected.kept[-1]) == 1


def test_without_text_after_the_image_self_attention_decides():
    model = build("llama", 3, seed=5)
    inputs = prompt(model, [3, "image"], seed=3)
    with torch.no_grad(), FitPrune(Recipe([12, 0, 0], 36))(model) as trace:
        model(**inputs)
    own = fitprune(model, inputs, [0, 0, 0]).scores[0].own
    gone = sorted(range(36), key=lambda index: own[index])[:12]
    assert kept(trace)[0] == sorted(set(range(36)) - set(gone))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_text_prompt_is_untouched(kind):
    model = build(kind, 3)
    inputs = prompt(model, [9], seed=1)
    with torch.no_grad():
        plain, tokens = model(**inputs).logits, new_tokens(model, inputs)
        with FitPrune(Recipe([9, 7, 12], 36))(model) as trace:
            assert torch.equal(model(**inputs).logits, plain)
            assert torch.equal(new_tokens(model, inputs), tokens)
    assert trace.visual_tokens.tolist() == [0]
    assert trace.text_tokens.tolist() == [9]


@pytest.mark.parametrize("kind", DECODERS)
def test_a_recipe_that_drops_nothing_is_the_dense_model(kind):
    model = build(kind, 3)
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad():
        plain = model(**inputs).logits
        with FitPrune(Recipe([0, 0, 0], 36))(model):
            assert torch.equal(model(**inputs).logits, plain)


def test_the_trace_counts_what_enters_and_what_leaves():
    model = build("llama", 3)
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad(), FitPrune(Recipe([9, 0, 12], 36))(model) as trace:
        model(**inputs)
    assert [count.tolist() for count in trace.visual_in] == [[36], [27], [27]]
    assert [count.tolist() for count in trace.visual_out] == [[27], [27], [15]]
    assert trace.visual_tokens.tolist() == [36]
    assert trace.text_tokens.tolist() == [8]
    assert trace.scoring_macs[0] > trace.scoring_macs[2] > trace.scoring_macs[1] == 0


def test_decoded_tokens_take_the_positions_of_the_unpruned_sequence():
    model = build("mistral", 3)
    inputs = prompt(model, [3, "image", 5], seed=1)
    drop = [9, 7, 12]
    seen = []
    hook = model.model.language_model.rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("position_ids", args[-1]).tolist()), with_kwargs=True
    )
    with hook, FitPrune(Recipe(drop, 36))(model):
        new_tokens(model, inputs, 6)
    assert seen[0] == [list(range(44))]
    assert seen[1:] == [[[position]] for position in fitprune(model, inputs, drop, 6).decode_positions]
    assert seen[1:] == [[[44 + step]] for step in range(5)]


@pytest.mark.parametrize("kind", DECODERS)
def test_bfloat16_stays_near_the_exact_answer(kind):
    """Scores differ in the third digit, so tokens near the border may change; counts may not, nor most tokens."""
    drop = [9, 7, 12]
    model = build(kind, 3, dtype=torch.bfloat16)
    inputs = prompt(model, [3, "image", 5], seed=1)
    expected = fitprune(model, inputs, drop)
    with torch.no_grad(), FitPrune(Recipe(drop, 36))(model) as trace:
        output = model(**inputs)
    assert output.logits.dtype == torch.bfloat16
    assert [len(layer) for layer in kept(trace)] == [27, 20, 8]
    shared = [len(set(a) & set(b)) / len(b) for a, b in zip(kept(trace), expected.kept, strict=True)]
    assert shared[0] >= 26 / 27
    assert min(shared) >= 0.75
    assert [cache_of(output).get_seq_length(layer) for layer in range(3)] == expected.kv_lengths
    # What text sees of the image changes little with a token of the border: the last row is compared in direction.
    cosine = torch.nn.functional.cosine_similarity(output.logits[0, -1].double(), expected.logits[-1], dim=0)
    assert float(cosine) > 0.99
