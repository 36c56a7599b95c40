"""MMTok against its literal rule, on random tensors and in models; and the words that it takes from a question."""

import pytest
import torch

from baselines.before_decoder.mmtok import MMTok, key_words
from fitprune import FitPruneError, Reader, UnsupportedModel, give_reader
from fitprune.models.reader import reader_of
from tests.reference.mmtok import mmtok
from tests.reference.tower import look
from tests.support import families
from tests.support.before_decoder import compare
from tests.support.models import batch, build, kept, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9], ["image"]]


def rule_of(model, samples, share):
    """What MMTok keeps: of each view, its share of the patches in the prompt, for the words of the whole prompt."""

    def rule(found, row):
        seen, going = look(model, samples[row], []), []
        words = torch.stack([vector for at, vector in enumerate(found.embeds) if at not in found.visual])
        for view in range(len(seen.views)):
            mine = [(index, patch) for index, (other, patch) in enumerate(seen.token) if other == view]
            names, patches = [index for index, _ in mine], [patch for _, patch in mine]
            chosen, lead = mmtok(words, found.features[names], seen.views[view][patches], round(share * len(mine)))
            assert lead > 1e-5
            going += [(names[index], None) for index in chosen]
        return sorted(going, key=lambda one: one[0])

    return rule


def test_in_a_batch():
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS[:4])]
    pruner = MMTok(8, visual_tokens=36)
    compare(model, pruner, samples, lambda side: batch(samples, side), rule_of(model, samples, 8 / 36))


def test_a_prompt_without_words_covers_patches_alone():
    model = build("llama-gqa", 3, seed=2)
    sample = prompt(model, ["image"])
    seen = look(model, sample, [])
    expected, lead = mmtok(torch.zeros(0, 32), seen.views[0], seen.views[0], 8)
    assert lead > 1e-5
    with torch.no_grad(), MMTok(8, visual_tokens=36)(model) as trace:
        model(**sample)
    assert kept(trace)[0] == expected


def test_tiles_without_their_padding():
    model = families.build("llava_next", 3)
    made = families.processor("llava_next")
    prompts = [["w1 w2", (60, 40), "w3"], ["w1", (24, 80), "w2 w7 w8"]]
    samples = [families.inputs(made, [one]) for one in prompts]
    with torch.no_grad(), MMTok(12, visual_tokens=36)(model) as trace:
        model(**families.inputs(made, prompts))
        together = [kept(trace, row)[0] for row in range(2)]
    for sample, (before, _, after), stays in zip(samples, prompts, together, strict=True):
        tower = look(model, sample, [])
        ids = made.tokenizer(f"{before} {after}", return_tensors="pt")["input_ids"][0]
        with torch.no_grad():
            words = model.get_input_embeddings()(ids)
            projected = model.model.multi_modal_projector(tower.views.float())
        expected = []
        for view in range(len(tower.views)):
            mine = [(index, patch) for index, (other, patch) in enumerate(tower.token) if other == view]
            patches = [patch for _, patch in mine]
            chosen, lead = mmtok(words, projected[view][patches], tower.views[view][patches], round(len(mine) / 3))
            assert lead > 1e-5
            expected += [mine[index][0] for index in chosen]
        assert stays == sorted(expected)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What color is the car?\nAnswer the question using a single word or phrase.", ["color", "car"]),
        ("Which is it?\nAnswer with the option's letter from the given choices directly.", ["Which", "is", "it?"]),
        ("THE red-hot one's", ["red", "hot", "one", "s"]),
        ("", []),
    ],
)
def test_the_words_of_a_question(question, words):
    assert key_words(question) == words


def test_what_is_asked_decides():
    model = build("llama-gqa", 3, seed=2)
    first = prompt(model, [3, "image", 5], seed=1)
    other = dict(first, input_ids=first["input_ids"].clone())
    other["input_ids"][0, -5:] = torch.tensor([50, 51, 52, 53, 54])
    with torch.no_grad(), MMTok(6, visual_tokens=36)(model) as trace:
        model(**first)
        one = kept(trace)[0]
        model(**other)
    assert kept(trace)[0] != one


def test_what_cannot_be_is_refused():
    for options, said in (({"alpha": -1}, "must not be negative"), ({"softmax_tv_temperature": 0}, "above 0")):
        with pytest.raises(FitPruneError, match=said):
            MMTok(**options)
    model = build("llama", 2)
    given = prompt(model, [3, "image", 5])
    given["inputs_embeds"] = model.get_input_embeddings()(given.pop("input_ids"))
    with torch.no_grad(), MMTok()(model), pytest.raises(UnsupportedModel, match="do not tell; give the prompt as input_ids"):
        model(**given)
    del model.model.fitprune_reader
    with pytest.raises(UnsupportedModel, match=r"mmtok chooses by the words.*give_reader\(model"), MMTok()(model):
        pass
    give_reader(model, Reader(families.tokenizer("llava_next")))
    assert reader_of(model.model) is not None
