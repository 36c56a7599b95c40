"""Conversations on a pruned prompt for tests: first turns of every family, and later turns as people call them."""

import copy

import torch
from transformers import DynamicCache

import tests.reference.families  # noqa: F401 - registers the layouts of tiled and rotated prompts
from tests.support import families, models
from tests.support.releases import cache_of, with_cache

FAMILIES = ("llava", *families.FAMILIES)


def build(family, **options):
    """A small model of the family."""
    return models.build("llama", 3, **options) if family == "llava" else families.build(family, 3, **options)


def first_turn(family, model, text=3, seed=1):
    """A prompt with an image in it, of more words the greater `text` is."""
    if family == "llava":
        return models.prompt(model, [3, "image", text], seed=seed)
    words = " ".join(f"w{(seed + word) % 9}" for word in range(text))
    return families.inputs(families.processor(family), [["w1 w2", (30, 20), words]], seed)


def question(length, seed=0):
    """Text that no prompt has: LongTensor (1, length)."""
    return torch.randint(20, 40, (1, length), generator=torch.Generator().manual_seed(seed))


def filled(model, inputs, cache=None):
    """A cache that holds the prompt."""
    cache = DynamicCache(config=model.config.get_text_config()) if cache is None else cache
    model(**inputs, **with_cache(model, cache))
    return cache


def answered(model, inputs, count=4):
    """The tokens so far (1, T) and the cache after a first answer; its last token is not in the cache yet."""
    out = model.generate(**inputs, max_new_tokens=count, do_sample=False, return_dict_in_generate=True)
    return out.sequences, cache_of(out)


def asked(model, cache, ids, count=3, **inputs):
    """The answer to the whole conversation `ids` with a copy of `cache`: tokens, and logits (batch, count, vocabulary)."""
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}
    out = model.generate(
        **given,
        **with_cache(model, copy.deepcopy(cache)),
        max_new_tokens=count,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, 1)


def forward(model, cache, ids, **inputs):
    """The logits behind new tokens that go on in `cache` itself."""
    return model(input_ids=ids, **inputs, **with_cache(model, cache)).logits
