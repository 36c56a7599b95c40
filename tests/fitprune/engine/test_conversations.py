"""A later question on the pruned cache of the first: what the literal computation says, however it is asked."""

import copy

import pytest
import torch

from baselines import DART, VTW, Dense, FastV, Pool, PyramidDrop, Random, ToMe, VisionZip
from fitprune import FitPrune, Recipe, UnsupportedModel
from tests.reference.conversation import of_trace
from tests.support.conversations import FAMILIES, answered, asked, build, filled, first_turn, forward, question
from tests.support.families import ON_AXES
from tests.support.models import batch, new_tokens, prompt
from tests.support.releases import with_cache

pytestmark = pytest.mark.releases
CLOSE = 2e-4
RECIPE = Recipe([9, 0, 12], 36)
PRUNERS = {
    "fitprune": FitPrune(RECIPE),
    "fitprune repacked": FitPrune(RECIPE, positions="repacked"),
    "fastv": FastV(k=1, r=0.4),
    "random": Random(0.5),
    "random repacked": Random(0.5, positions="repacked"),
    "vtw": VTW(2),
    "pyramiddrop": PyramidDrop((1, 2), (0.5, 0.2), positions="kept"),
    "pyramiddrop repacked": PyramidDrop((1, 2), (0.5, 0.2), positions="repacked"),
    "dart": DART(1, 13, visual_tokens=36),
    "dense": Dense(),
}
# Methods that choose by the image alone, so that the whole conversation given anew keeps the same tokens.
MERGING = {
    "visionzip": VisionZip(8, 4, visual_tokens=36),
    "visionzip kept": VisionZip(8, 4, visual_tokens=36, positions="kept"),
    "tome": ToMe(r=4),
    "pool": Pool(3, 3),
}
RUNS = {
    "llava": {"visionzip", "visionzip kept", "tome", "pool"},
    "llava_next": {"visionzip", "visionzip kept", "tome", "pool"},
    "llava_onevision": {"visionzip", "visionzip kept", "tome", "pool"},
    "qwen2_5_vl": set(),
    "qwen3_vl": set(),
    "internvl": set(),
    "smolvlm": set(),
    "gemma3": set(),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return build(family, seed=4)


@pytest.fixture
def first(family, model):
    return first_turn(family, model)


def whole(first, ids):
    """The whole conversation as a processor gives it, without the images."""
    given = {"attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in first:
        types = first["mm_token_type_ids"]
        given["mm_token_type_ids"] = torch.cat([types, types.new_zeros(1, ids.shape[1] - types.shape[1])], 1)
    return given


def apart(a, b):
    return float((a - b).abs().max())


def same_answer(reference, tokens, logits, new):
    """Whether tokens and logits of an answer are those of the literal conversation that goes on with `new`."""
    expected = reference.say(new[0].tolist())[-1]
    for token, own in zip(tokens[0].tolist(), logits[0], strict=True):
        assert apart(own, expected) < CLOSE
        expected = reference.say([token])[-1]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("name", PRUNERS)
@torch.no_grad()
def test_a_second_and_a_third_question(family, model, first, name):
    """By generate with the whole conversation; by generate and by forwards with the new tokens alone."""
    pruner = PRUNERS[name]
    if family in ON_AXES and "repacked" in name:
        pytest.skip("positions on three axes stay")
    with pruner(model) as trace:
        ids, cache = answered(model, first)
        reference = of_trace(model, first, trace, repacked="repacked" in name)
        held = [cache.get_seq_length(layer) for layer in range(3)]
        assert held == [rows + 3 for rows in reference.rows]
        reference.say(ids[0, first["input_ids"].shape[1] : -1].tolist())
        for length in (1, 5):
            words = question(length, seed=length)
            ids = torch.cat([ids, words], 1)
            new = ids[:, cache.get_seq_length() :]
            given = whole(first, ids)
            tokens, logits = asked(model, cache, ids, **given)
            same_answer(reference.copy(), tokens, logits, new)
            again, _ = asked(model, cache, new, **{**given, "attention_mask": torch.ones_like(ids)})
            assert again.tolist() == tokens.tolist()
            expected = reference.copy().say(new[0].tolist())
            assert apart(forward(model, copy.deepcopy(cache), new)[0], expected) < CLOSE
            if family not in ON_AXES:  # there transformers numbers the whole mask where a forward brings new tokens alone
                masked = forward(model, copy.deepcopy(cache), new, attention_mask=torch.ones_like(ids))
                assert apart(masked[0], expected) < CLOSE
            assert apart(forward(model, cache, new)[0], expected) < CLOSE
            reference.say(new[0].tolist())


@pytest.mark.parametrize("name", MERGING)
@torch.no_grad()
def test_a_second_question_after_merging(family, model, first, name):
    """Equals the whole conversation given anew: what is kept and merged is a matter of the image alone."""
    pruner = MERGING[name]
    if name not in RUNS[family]:
        with pytest.raises(UnsupportedModel), pruner(model):
            model(**first)
        return
    with pruner(model):
        ids, cache = answered(model, first)
        for length in (1, 5):
            ids = torch.cat([ids, question(length, seed=length)], 1)
            given = whole(first, ids)
            anew = model.generate(
                **{**first, **given, "input_ids": ids},
                max_new_tokens=3,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
            tokens, logits = asked(model, cache, ids, **given)
            assert tokens.tolist() == anew.sequences[:, ids.shape[1] :].tolist()
            assert apart(logits, torch.stack(anew.logits, 1)) < CLOSE
            forward(model, cache, ids[:, cache.get_seq_length() :])


@torch.no_grad()
def test_several_questions_on_one_prefix(family, model, first):
    """Copies go their own ways, in any order, and the prefix stays as it was."""
    with FitPrune(RECIPE)(model) as trace:
        prefix = filled(model, first)
        reference = of_trace(model, first, trace)
        for seed, length in enumerate((4, 1, 7)):
            words = question(length, seed)
            expected = reference.copy().say(words[0].tolist())
            assert apart(forward(model, copy.deepcopy(prefix), words)[0], expected) < CLOSE
        assert prefix.get_seq_length() == first["input_ids"].shape[1]


SAMPLES = [[3, "image", 5], [1, "image", 2], [6, "image", 1, "image", 3], [7]]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [*PRUNERS, *MERGING])
@torch.no_grad()
def test_a_padded_batch_of_conversations_is_one_by_one(name, attention):
    """Prompts padded before them, questions padded between answer and question."""
    model = build("llava", seed=3, attention=attention)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(SAMPLES)]
    lengths = [4, 6, 1, 3]
    words = [question(length, seed)[0] for seed, length in enumerate(lengths)]
    later, mask = torch.zeros(4, 6, dtype=torch.long), torch.zeros(4, 6, dtype=torch.long)
    for row, own in enumerate(words):
        later[row, 6 - len(own) :], mask[row, 6 - len(own) :] = own, 1
    with {**PRUNERS, **MERGING}[name](model):
        together = batch(samples)
        ids, cache = answered(model, together)
        ids = torch.cat([ids, later], 1)
        said = torch.ones(4, 4, dtype=torch.long)
        tokens, logits = asked(model, cache, ids, attention_mask=torch.cat([together["attention_mask"], said, mask], 1))
        for row, sample in enumerate(samples):
            own_ids, own_cache = answered(model, sample)
            one, one_logits = asked(model, own_cache, torch.cat([own_ids, words[row][None]], 1))
            assert tokens[row].tolist() == one[0].tolist()
            assert apart(logits[row], one_logits[0]) < CLOSE


@pytest.mark.parametrize("name", ["fitprune", "fitprune repacked", "random", "random repacked", "visionzip"])
@torch.no_grad()
def test_a_padded_batch_in_plain_forwards(name):
    """Without position ids, where transformers counts the padding too."""
    model = build("llava", seed=3)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(SAMPLES)]
    words = torch.cat([question(3, seed) for seed in range(4)])
    with {**PRUNERS, **MERGING}[name](model):
        together = forward(model, filled(model, batch(samples)), words)
        for row, sample in enumerate(samples):
            alone = forward(model, filled(model, sample), words[row : row + 1])
            assert apart(together[row], alone[0]) < CLOSE


@torch.no_grad()
def test_padding_of_an_earlier_turn_stays_hidden():
    """A forward without a mask goes on with the masks of the forwards before it."""
    model = build("llava", seed=3)
    first, words, more = prompt(model, [3, "image", 5], 1), question(5), question(2, 1)
    hidden = torch.cat([torch.ones(1, 44), torch.tensor([[1, 1, 0, 0, 1]])], 1).long()
    with FitPrune(RECIPE)(model):
        cache = filled(model, first)
        forward(model, cache, words, attention_mask=hidden)
        silent = forward(model, copy.deepcopy(cache), more)
        said = forward(model, copy.deepcopy(cache), more, attention_mask=torch.cat([hidden, torch.ones(1, 2).long()], 1))
        seen = forward(model, cache, more, attention_mask=torch.ones(1, 51).long())
    assert apart(silent, said) == 0
    assert apart(silent, seen) > CLOSE


@torch.no_grad()
def test_text_before_an_image_is_another_conversation(family, model, first):
    """A new image in a later turn is refused with what to do, whatever the first turn was."""
    text = {"input_ids": question(6), "attention_mask": torch.ones(1, 6, dtype=torch.long)}
    with FitPrune(RECIPE)(model):
        for turn in (text, first):
            ids, cache = answered(model, turn)
            images = [name for name in first if name not in ("input_ids", "attention_mask", "mm_token_type_ids")]
            again = {name: torch.cat([turn[name], first[name]]) if name in turn else first[name] for name in images}
            again["input_ids"] = torch.cat([ids, first["input_ids"]], 1)
            again["attention_mask"] = torch.ones_like(again["input_ids"])
            if "mm_token_type_ids" in first:
                again["mm_token_type_ids"] = (again["input_ids"] == model.config.image_token_id).long()
            with pytest.raises(UnsupportedModel, match=r"^an image or video comes in after .*whole conversation anew[^\n]*$"):
                asked(model, cache, again.pop("input_ids"), **again)
            with pytest.raises(UnsupportedModel, match=r"^an image or video comes in after .*whole conversation anew[^\n]*$"):
                forward(model, cache, first["input_ids"])
        ids = torch.cat([ids, question(3)], 1)
        with pytest.raises(UnsupportedModel, match=r"leave out their pixels"):
            asked(model, cache, ids, **{**first, **whole(first, ids), "input_ids": ids})


@torch.no_grad()
def test_embeddings_in_a_later_turn_may_hold_an_image():
    model = build("llava", seed=3)
    with FitPrune(RECIPE)(model):
        cache = filled(model, first_turn("llava", model))
        with pytest.raises(UnsupportedModel, match="inputs_embeds"):
            forward(model, cache, None, inputs_embeds=torch.randn(1, 4, 32))


@torch.no_grad()
def test_guesses_are_refused_in_a_later_turn_too(family, model, first):
    with FitPrune(RECIPE)(model):
        ids, cache = answered(model, first)
        words = torch.cat([ids[:, -1:], question(6)], 1)
        mask = torch.ones(1, ids.shape[1] + 6, dtype=torch.long)
        for start in (words, torch.cat([ids, words[:, 1:]], 1)):
            given = {"input_ids": start, "attention_mask": mask, **with_cache(model, cache)}
            with pytest.raises(UnsupportedModel, match="prompt-lookup"):
                new_tokens(model, given, prompt_lookup_num_tokens=3)
