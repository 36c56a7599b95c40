"""What people do to a KV cache: with a pruned prompt in it, the engine follows what it holds, or refuses in one line."""

import copy
import pickle

import pytest
import torch
from transformers import DynamicCache

from baselines import Dense, FastV, Pool, Random, ToMe, VisionZip
from fitprune import FitPrune, Recipe, UnsupportedModel
from tests.reference.conversation import of_trace
from tests.support.conversations import FAMILIES, answered, asked, build, filled, first_turn, forward, question
from tests.support.models import batch, new_tokens, prompt
from tests.support.releases import cache_of, with_cache

pytestmark = pytest.mark.releases
CLOSE = 2e-4
RECIPE = Recipe([9, 0, 12], 36)
PRUNERS = {
    "fitprune": FitPrune(RECIPE),
    "fitprune repacked": FitPrune(RECIPE, positions="repacked"),
    "fastv": FastV(k=1, r=0.4),
    "random": Random(0.5),
    "random repacked": Random(0.5, positions="repacked"),
    "visionzip": VisionZip(8, 4, visual_tokens=36),
    "tome": ToMe(r=4),
    "pool": Pool(3, 3),
    "dense": Dense(),
}
LITERAL = ("fitprune", "fitprune repacked", "fastv", "random", "random repacked", "dense")
ONE_LINE = r"^[^\n]{20,300}$"


@pytest.fixture(scope="module")
def model():
    return build("llava", seed=4)


@pytest.fixture
def first(model):
    return first_turn("llava", model, text=5)


@pytest.fixture
def padded(model):
    """Three prompts of unequal padding."""
    return batch([prompt(model, [3, "image", 6], seed=1), prompt(model, [2, "image", 3], seed=2), prompt(model, [9], seed=3)])


@pytest.fixture(params=PRUNERS)
def pruner(request):
    return PRUNERS[request.param]


def apart(a, b):
    return float((a - b).abs().max())


def cropped(cache, count):
    cache.crop(-count)
    return cache


@torch.no_grad()
def test_tokens_that_were_rolled_back_leave_nothing(model, first, pruner):
    """As in assisted decoding: what was decoded and cropped might as well not have been."""
    with pruner(model):
        cache = filled(model, first)
        expected = forward(model, copy.deepcopy(cache), question(4))
        forward(model, cache, question(3, seed=9))
        forward(model, cache, question(2, seed=8), attention_mask=torch.tensor([[1] * 47 + [0, 1]]))
        assert cropped(cache, 2).get_seq_length() == 47
        assert cropped(cache, 3).get_seq_length() == 44
        assert apart(forward(model, cache, question(4)), expected) == 0


@pytest.mark.parametrize("name", LITERAL)
@torch.no_grad()
def test_another_question_in_place_of_the_first(model, first, name):
    """Text behind the image can be cropped: each layer keeps what it holds of the rest."""
    with PRUNERS[name](model) as trace:
        cache = filled(model, first)
        reference = of_trace(model, first, trace, repacked="repacked" in name)
        forward(model, cache, question(2, seed=9))
        reference.say(question(2, seed=9)[0].tolist())
        cropped(cache, 2 + 4)
        reference.crop(2 + 4)
        assert apart(forward(model, cache, question(3))[0], reference.say(question(3)[0].tolist())) < CLOSE


@pytest.mark.parametrize("masked", [True, False])
@torch.no_grad()
def test_another_question_in_a_padded_batch(model, padded, pruner, masked):
    """Cropped alone or in a batch, decoded tokens and padding between turns included; then padding before the question."""
    mask, words = padded["attention_mask"], torch.cat([question(3, seed) for seed in range(3)])
    gap = torch.cat([mask, torch.tensor([[0, 1], [1, 1], [0, 1]])], 1)
    with pruner(model):
        cache = filled(model, padded)
        alone = copy.deepcopy(cache)
        forward(model, cache, words[:, :2], attention_mask=gap)
        cropped(cache, 2 + 3)
        first = [0, 1, 2] if masked else [0, 0, 0]
        after = torch.cat([mask[:, :-3], torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]])], 1)
        together = forward(model, cache, words, **({"attention_mask": after} if masked else {}))
        for row, start in enumerate(first):
            one = copy.deepcopy(alone)
            one.batch_select_indices(torch.tensor([row]))
            numbers = torch.arange(mask.shape[1] - 3 + start, mask.shape[1])[None]
            own = forward(model, cropped(one, 3), words[row : row + 1, start:], position_ids=numbers)
            assert apart(own[0], together[row, start:]) < CLOSE


@torch.no_grad()
def test_cropping_into_the_image_is_refused_before_anything_goes(model, first, pruner):
    with pruner(model):
        cache = filled(model, first)
        expected = forward(model, copy.deepcopy(cache), question(3))
        forward(model, cache, question(2))
        for count in (8, 40, 100):
            with pytest.raises(UnsupportedModel, match=r"at most 7 can be cropped[^\n]*$"):
                cache.crop(-count)
        assert apart(forward(model, cropped(cache, 2), question(3)), expected) == 0
        assert cropped(cache, 8).get_seq_length() == 39


@torch.no_grad()
def test_the_length_to_keep_is_that_of_the_unpruned_sequence(model, first):
    """Old releases take it as a positive number; newer ones refuse that, pruned or not."""
    plain, outcomes = DynamicCache(), []
    model(**first, **with_cache(model, plain))
    with Random(0.5)(model):
        for cache in (plain, filled(model, first)):
            try:
                cache.crop(41)
                outcomes.append(cache.get_seq_length())
            except ValueError as error:
                outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


def arranged(cache, how):
    """The cache with its samples changed; and the samples that are there now."""
    if how == "reorder":
        cache.reorder_cache(torch.tensor([2, 0, 1]))
        return [2, 0, 1]
    if how == "select":
        cache.batch_select_indices(torch.tensor([1, 0]))
        return [1, 0]
    if how == "mask":
        cache.batch_select_indices(torch.tensor([False, True, True]))
        return [1, 2]
    cache.batch_repeat_interleave(2)
    return [0, 0, 1, 1, 2, 2]


@pytest.mark.product(strength=2)
@pytest.mark.parametrize("positions", [True, False], ids=["positions", "no positions"])
@pytest.mark.parametrize("how", ["reorder", "select", "mask", "repeat"])
@torch.no_grad()
def test_samples_that_change_places(model, padded, pruner, how, positions):
    """In a batch of unequal padding, with padding between turns."""
    mask, words = padded["attention_mask"], torch.cat([question(3, seed) for seed in range(3)])
    gap = torch.cat([mask, torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1]])], 1)
    after = torch.cat([gap, torch.ones(3, 1, dtype=torch.long)], 1)
    numbers = (gap.cumsum(1) - 1).clamp(min=0)

    def placed(ids, rows=slice(None)):
        return {"position_ids": ids[rows]} if positions else {}

    with pruner(model):
        cache = filled(model, {**padded, **placed(numbers[:, : mask.shape[1]])})
        forward(model, cache, words, attention_mask=gap, **placed(numbers[:, -3:]))
        last = torch.tensor([[30], [31], [32]])
        expected = forward(model, copy.deepcopy(cache), last, attention_mask=after, **placed(after.sum(1)[:, None] - 1))
        rows = arranged(cache, how)
        given = {"attention_mask": after[rows], **placed(after.sum(1)[:, None] - 1, rows)}
        assert apart(forward(model, copy.deepcopy(cache), last[rows], **given), expected[rows]) < CLOSE
        del given["attention_mask"]
        assert apart(forward(model, cache, last[rows], **given), expected[rows]) < CLOSE


@torch.no_grad()
def test_samples_split_and_put_to_use_apart(model, padded, pruner):
    with pruner(model):
        cache = filled(model, padded)
        words = torch.cat([question(4, seed) for seed in range(3)])
        expected = forward(model, copy.deepcopy(cache), words)
        for row in range(3):
            one = copy.deepcopy(cache)
            one.batch_select_indices(torch.tensor([row]))
            assert apart(forward(model, one, words[row : row + 1])[0], expected[row]) < CLOSE


@torch.no_grad()
def test_copies(model, first, pruner):
    """A deep copy is apart from the cache, also through pickle; a shallow one is the same cache, as in transformers."""
    with pruner(model):
        cache = filled(model, first)
        expected = forward(model, copy.deepcopy(cache), question(3))
        pickled = pickle.loads(pickle.dumps(cache))
        assert apart(forward(model, pickled, question(3)), expected) == 0
        assert cache.get_seq_length() == 44
        alias = copy.copy(cache)
        forward(model, alias, question(2, seed=9))
        assert cache.get_seq_length() == alias.get_seq_length() == 46
        assert apart(forward(model, cropped(cache, 2), question(3)), expected) == 0


@torch.no_grad()
def test_after_the_context_a_cache_and_its_copies_are_refused(model, first, pruner):
    """And go on in the next context, whatever pruner that has: nothing of it touches what the cache holds."""
    with pruner(model):
        cache = filled(model, first)
        inside, twin = copy.deepcopy(cache), copy.deepcopy(cache)
        expected = forward(model, inside, question(3))
    for outside in (cache, twin, copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        for ids in (question(1), question(3)):
            with pytest.raises(UnsupportedModel, match=r"^this KV cache holds a pruned prompt[^\n]*$"):
                forward(model, outside, ids)
    for other in (pruner, FastV(k=2, r=0.7), Random(0.1)):
        with other(model):
            assert apart(forward(model, copy.deepcopy(twin), question(3)), expected) == 0


@torch.no_grad()
def test_an_emptied_cache_is_a_new_one(model, first, pruner):
    plain = new_tokens(model, first)
    cache = DynamicCache(config=model.config.text_config)
    with pruner(model):
        filled(model, first, cache)
        expected = forward(model, copy.deepcopy(cache), question(3))
        cache.reset()
        assert type(cache) is DynamicCache
        filled(model, first, cache)
        assert apart(forward(model, cache, question(3)), expected) == 0
        cache.reset()
    out = model.generate(**first, **with_cache(model, cache), max_new_tokens=6, do_sample=False)
    assert torch.equal(out[:, 44:], plain)


@torch.no_grad()
def test_what_a_cache_cannot_carry_is_refused(model, first):
    with FitPrune(RECIPE)(model):
        cache = filled(model, first)
        with pytest.raises(UnsupportedModel, match=ONE_LINE):
            DynamicCache(tuple(cache))
        loose = DynamicCache([(layer.keys, layer.values) for layer in cache.layers])
        with pytest.raises(UnsupportedModel, match=r"filled outside[^\n]*$"):
            forward(model, loose, question(1))
        cache.layers[1].crop(-1)
        with pytest.raises(UnsupportedModel, match=r"holds 44, 34, 35 tokens by layer where the pruner left 44, 35, 35"):
            forward(model, cache, question(1))


@pytest.mark.parametrize("turn", ["prompt", "question"])
@torch.no_grad()
def test_a_forward_that_was_interrupted(model, first, turn):
    """Some layers have the new tokens, others have not."""
    norm = model.model.language_model.layers[1].post_attention_layernorm
    with FitPrune(RECIPE)(model):
        cache = DynamicCache() if turn == "prompt" else filled(model, first)

        def stop(*_):
            raise KeyboardInterrupt

        handle = norm.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            filled(model, first, cache) if turn == "prompt" else forward(model, cache, question(3))
        handle.remove()
        with pytest.raises(UnsupportedModel, match=r"^this KV cache holds [^\n]*interrupted[^\n]*$"):
            forward(model, cache, question(1))


@torch.no_grad()
def test_masks_that_do_not_fit(model, padded):
    mask = padded["attention_mask"]
    total = mask.shape[1] + 1
    with FitPrune(RECIPE)(model):
        cache = filled(model, padded)
        ids = torch.tensor([[5], [6], [7]])
        with pytest.raises(UnsupportedModel, match=rf"mask has 30 columns[^\n]*{total} tokens"):
            forward(model, cache, ids, attention_mask=torch.ones(3, 30, dtype=torch.long))
        with pytest.raises(UnsupportedModel, match=r"hides other tokens of the prompt"):
            forward(model, cache, ids, attention_mask=torch.ones(3, total, dtype=torch.long))
        given = torch.cat([mask, mask.new_ones(3, 1)], 1)
        assert torch.isfinite(forward(model, cache, ids, attention_mask=given)).all()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_beams_go_on_in_a_second_turn(family):
    """Beams reorder the cache at every step; the next turn goes on with all of them."""
    model = build(family, seed=4)
    first = first_turn(family, model)
    with FitPrune(RECIPE)(model):
        out = model.generate(
            **first, max_new_tokens=4, do_sample=False, num_beams=3, num_return_sequences=3, return_dict_in_generate=True
        )
        cache = cache_of(out)
        assert cache.get_seq_length() == first["input_ids"].shape[1] + 3
        assert cache.layers[0].keys.shape[0] == 3
        # The cache's rows are the beams of the step before the last.
        row = copy.deepcopy(cache)
        row.batch_select_indices(torch.tensor([0]))
        together = forward(model, cache, question(4).expand(3, -1))
        assert apart(forward(model, row, question(4))[0], together[0]) < CLOSE


def text_turns(model, cache):
    """A text chat with everything done to its cache; all logits on the way."""
    first = {"input_ids": torch.cat([question(9, 1), question(9, 2)]), "attention_mask": torch.ones(2, 18 // 2).long()}
    logits = [model(**first, **with_cache(model, cache)).logits]
    words = torch.cat([question(4, 3), question(4, 4)])
    logits.append(forward(model, copy.deepcopy(cache), words))
    logits.append(forward(model, cache, words))
    cache.crop(-7)
    logits.append(forward(model, cache, words))
    cache.reorder_cache(torch.tensor([1, 0]))
    logits.append(forward(model, cache, words[:, :1]))
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([3, 0]))
    logits.append(forward(model, copy.copy(cache), words))
    ids = torch.cat([question(cache.get_seq_length(), 5).expand(2, -1), words], 1)
    logits.append(asked(model, cache, ids)[1])
    logits.append(forward(model, DynamicCache([(layer.keys, layer.values) for layer in cache.layers][:0]), words))
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_text_is_untouched_in_all_of_this(family):
    model = build(family, seed=4)
    expected = text_turns(model, DynamicCache())
    with FitPrune(RECIPE)(model):
        cache = DynamicCache()
        for own, plain in zip(text_turns(model, cache), expected, strict=True):
            assert torch.equal(own, plain)
        assert type(cache) is DynamicCache
    model(input_ids=torch.cat([question(3), question(3)]), **with_cache(model, cache))


@torch.no_grad()
def test_text_before_the_context_goes_on_inside_where_it_is_known_to_be_text(model, first):
    """generate() is given the tokens in the cache too; a forward is not, and a cache does not say what its tokens were."""
    ids, cache = answered(model, {"input_ids": question(8)})
    ids = torch.cat([ids, question(4, 1)], 1)
    expected, logits = asked(model, cache, ids)
    image_ids, image_cache = answered(model, first)
    image_ids = torch.cat([image_ids, question(4, 1)], 1)
    long, embeds = torch.cat([image_ids, question(80)], 1), model.get_input_embeddings()(image_ids)
    with FitPrune(RECIPE)(model):
        assert torch.equal(asked(model, cache, ids)[0], expected)
        assert torch.equal(asked(model, cache, ids)[1], logits)
        for unknown in (
            lambda: asked(model, image_cache, image_ids),
            lambda: forward(model, copy.deepcopy(cache), question(4)),
            lambda: asked(model, cache, ids[:, cache.get_seq_length() :], attention_mask=torch.ones_like(ids)),
            lambda: asked(model, image_cache, long[:, image_cache.get_seq_length() :], attention_mask=torch.ones_like(long)),
            lambda: asked(
                model, image_cache, image_ids[:, :0], attention_mask=torch.ones_like(image_ids), inputs_embeds=embeds
            ),
        ):
            with pytest.raises(UnsupportedModel, match=r"filled outside[^\n]*$"):
                unknown()


@torch.no_grad()
def test_text_that_went_on_with_an_image_outside_is_not_taken_for_text(model, first):
    cache = DynamicCache()
    with FitPrune(RECIPE)(model):
        forward(model, cache, question(5))
    filled(model, first, cache)
    with FitPrune(RECIPE)(model), pytest.raises(UnsupportedModel, match=r"filled outside[^\n]*$"):
        forward(model, cache, question(2))


@torch.no_grad()
def test_what_is_known_of_one_cache_is_not_taken_for_another(model, first):
    """A forward that fails before the decoder leaves no word of its cache to the next."""
    ids, cache = answered(model, {"input_ids": question(8)})
    _, image_cache = answered(model, first)

    def stop(*_):
        raise KeyboardInterrupt

    with FitPrune(RECIPE)(model):
        handle = model.get_input_embeddings().register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            asked(model, cache, torch.cat([ids, question(4, 1)], 1))
        handle.remove()
        with pytest.raises(UnsupportedModel, match=r"filled outside[^\n]*$"):
            forward(model, image_cache, question(4))
