"""What holds for every registered method on every model that ships with the package."""

import copy
import functools
import io
import json
import re

import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from baselines.registry import PRUNERS, get_pruner_class
from fitprune import BudgetError, FitPrune, Recipe, UnsupportedModel
from harness.cost.flops import count
from harness.cost.tally import Tally, batch_cost
from harness.models.loading import load_model
from harness.models.prompting import encode
from harness.tasks.calibration import calibration_samples
from tests.support.flop_checkers import torch_flops
from tests.support.methods import one_a_kind
from tests.support.models import kept
from tests.support.releases import with_cache

pytestmark = pytest.mark.releases
MODELS = ("llava-tiny", "llava-next-tiny", "llava-hr-tiny")
METHODS = [name for name in PRUNERS if name != "dense"]
# Two that look into the tower, one before the decoder and one between its layers, and one that merges in the tower.
COMPOSED = ["visionzip+fitprune", "divprune+fastv", "random+vispruner", "tome+fitprune"]
REDUCTIONS = (0.3, 0.5, 0.7, 0.9)
TOLERANCE = 0.01

# Methods that cannot run on a model, whatever the budget.
# No CLIP text tower is of these models' towers, and they are shown no videos.
UNABLE = {model: {"cdpruner", "trim", "evs", "vidcom2"} for model in MODELS}
UNABLE["llava-hr-tiny"] |= {"tome", "tome+fitprune"}

# By default each test asks each method on one of the models; of the model with tiles, whose prompts are long, one of each room.
ON_TILES = [name for name in one_a_kind(METHODS) if isinstance(name, str)] + ["visionzip+fitprune"]
one_model = pytest.mark.product(
    strength=1,
    without=lambda loaded, pruner: pruner in UNABLE[loaded] or (loaded == "llava-next-tiny" and pruner not in ON_TILES),
)

# Methods that change tokens that stay, however few go: PruMerge adds 32 neighbours to each.
NEVER_DENSE = {"prumerge", "restore-holov", "restore-vispruner", "restore-divprune"}

# The share of a prompt's tokens by which a method's count may depend on rounding: of ToMe's tokens those go that are named by
# a tile's padding, and rounding decides between two patches that are nearly as like to a third.
BY_CONTENT = {"tome": 0.01}

# Prompts over which a saving is measured.
ASKED = 2

# Pictures of these sizes become prompts of three lengths on a tiled model.
SIZES = [(96, 96), (200, 90), (90, 210)]


@functools.cache
def model_of(name):
    return load_model(name, "cpu")


@pytest.fixture(scope="module", params=MODELS)
def loaded(request):
    return model_of(request.param)


@pytest.fixture(scope="module")
def samples():
    """Two questions about a picture, one about two, one about none."""
    return drawn_samples()


@functools.cache
def drawn_samples():
    drawn = [(Image.open(io.BytesIO(data)).convert("RGB"), text) for data, text in calibration_samples(samples=len(SIZES))]
    pictures = [picture.resize(size) for (picture, _), size in zip(drawn, SIZES, strict=True)]
    texts = [text for _, text in drawn]
    images = [[pictures[0]], [pictures[1]], [pictures[2], pictures[0]], []]
    return list(zip([*texts, "How many objects are there?"], images, strict=True))


def inputs_of(loaded, samples):
    return encode(loaded, [text for text, _ in samples], [images for _, images in samples])


@functools.cache
def solved(method, model, reduction):
    """The method at a budget on a model that ships; where it cannot run, or cannot reach it, what it says."""
    cls, loaded = get_pruner_class(method), model_of(model)
    config = loaded.model.config
    tokens = 288 if config.model_type == "llava_next" else None  # of a picture of 96×96 pixels
    layers, n = config.get_text_config().num_hidden_layers, tokens or 144
    recipe = Recipe([round(n * reduction / 3)] * 3 + [2] * (layers - 3), n)
    if cls is FitPrune:
        return FitPrune(recipe)
    given = {"options": {"fitprune": {"recipe": recipe}}} if "fitprune" in method else {}
    try:
        pruner = cls.for_reduction(config, reduction, visual_tokens=tokens, **given)
        with pruner(loaded.model):
            return pruner
    except BudgetError as error:
        said, sayable = str(error), r"[^\n]*\d%[^\n]*"  # what it can reach, in one line
    except UnsupportedModel as error:
        said, sayable = str(error), r"[^\n]+"
    assert re.fullmatch(sayable, said), said
    return said


def near(method, model, *reductions):
    """The method at the first of these budgets that it reaches; skips with the last reason where it reaches none."""
    for reduction in reductions:
        found = solved(method, model, reduction)
        if not isinstance(found, str):
            return found
    pytest.skip(f"cannot: {found}")


@pytest.fixture(scope="module", params=[*METHODS, *COMPOSED])
def pruner(request, loaded):
    return near(request.param, loaded.name, 0.5, 0.6, 0.4, 0.7, 0.3)


@functools.cache
def every_input(model):
    return inputs_of(model_of(model), drawn_samples())


def generate(model, inputs, new_tokens=2):
    """What generate returns: `sequences` and, per new token, `logits`."""
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}
    return model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)


@pytest.fixture(scope="module")
def seen(loaded, pruner):
    """The trace of all samples' pruned generation, and what it generates."""
    with torch.no_grad(), pruner(loaded.model) as trace:
        return trace, generate(loaded.model, every_input(loaded.name))


@pytest.fixture(scope="module")
def singles(loaded, samples, pruner):
    """The trace of each sample's pruned generation, and what it generates."""
    found = []
    for sample in samples:
        with torch.no_grad(), pruner(loaded.model) as trace:
            found.append((trace, generate(loaded.model, inputs_of(loaded, [sample]))))
    return found


@one_model
def test_a_batch_gives_what_its_samples_give_one_by_one(seen, singles):
    together, generated = seen
    for row, (trace, alone) in enumerate(singles):
        assert alone.sequences[0, -2:].tolist() == generated.sequences[row, -2:].tolist()
        assert kept(trace) == kept(together, row)
        assert [int(layer[0]) for layer in trace.visual_in] == [int(layer[row]) for layer in together.visual_in]


@one_model
def test_survivors_are_in_order_and_counted(samples, seen):
    trace, pruned = seen[0], False
    for row in range(len(samples)):
        before, total = set(range(int(trace.visual_tokens[row]))), int(trace.visual_tokens[row])
        for layer, survivors in enumerate(kept(trace, row)):
            assert survivors == sorted(set(survivors))
            assert set(survivors) <= before
            # Tokens that stand for no single one are counted, but have no index.
            assert len(survivors) <= int(trace.visual_out[layer][row]) <= int(trace.visual_in[layer][row]) <= total
            before = set(survivors)
        pruned |= len(before) < total
    assert pruned
    assert int(trace.visual_in[-1][len(samples) - 1]) == 0


@one_model
@torch.no_grad()
def test_each_layers_cache_holds_what_entered_it_and_decoding_goes_on_from_there(loaded, samples, pruner):
    inputs, cache, positions = inputs_of(loaded, samples[1:2]), DynamicCache(), []
    decoder = loaded.model.get_decoder()
    with pruner(loaded.model) as trace:
        loaded.model(**inputs, **with_cache(loaded.model, cache))
        text, total = int(trace.text_tokens), int(trace.visual_tokens)
        entered = [int(layer) for layer in trace.visual_in]
        assert [cache.get_seq_length(layer) for layer in range(len(decoder.layers))] == [text + own for own in entered]
        with _noting(decoder.rotary_emb, positions):
            loaded.model(input_ids=torch.ones(1, 1, dtype=torch.long), **with_cache(loaded.model, cache))
            mask = torch.ones(1, text + total + 2, dtype=torch.long)
            ids = torch.tensor([[text + total + 1]])
            loaded.model(
                input_ids=torch.ones(1, 1, dtype=torch.long),
                **with_cache(loaded.model, cache),
                attention_mask=mask,
                position_ids=ids,
            )
    # Repacked, every layer goes on after what entered it; embeddings are made once for layers that hold the same.
    first = (
        [text + own for own in dict.fromkeys(entered)] if pruner.members[-1].positions == "repacked" else [text + entered[0]]
    )
    if all(member.positions == "kept" for member in pruner.members):
        first = [text + total]
    assert positions == first + [position + 1 for position in first]


class _noting:
    """Notes the position ids that rotary embeddings are made for."""

    def __init__(self, module, into):
        self.hook = module.register_forward_pre_hook(self.note, with_kwargs=True)
        self.into = into

    def note(self, module, args, kwargs):
        self.into += (args[1] if len(args) > 1 else kwargs["position_ids"]).flatten().tolist()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.hook.remove()


@functools.cache
def outside(model):
    """A picture and none, for a model that nothing prunes, and what it makes of them."""
    loaded, samples = model_of(model), drawn_samples()
    inputs = inputs_of(loaded, [samples[1], samples[-1]])
    with torch.no_grad():
        return inputs, loaded.model(**inputs).logits


@one_model
@torch.no_grad()
def test_nothing_stays_behind_and_text_is_untouched(loaded, samples, pruner):
    model, text = loaded.model, inputs_of(loaded, samples[-1:])
    inputs, before = outside(loaded.name)
    with pruner(model):
        assert not torch.equal(before, model(**inputs).logits)
        inside = model(**text).logits
    assert torch.equal(inside, model(**text).logits)
    assert torch.equal(before, model(**inputs).logits)
    assert not [module for module in model.modules() if "forward" in vars(module)]


@one_model
@torch.no_grad()
def test_twice_the_same_and_recorded_as_json(loaded, samples, singles, pruner):
    before, generated = singles[1]
    with pruner(loaded.model) as trace:
        again = loaded.model(**inputs_of(loaded, samples[1:2]), logits_to_keep=1).logits[:, -1]
    assert torch.equal(generated.logits[0], again)
    assert kept(before) == kept(trace)
    params = json.loads(json.dumps(pruner.params()))
    for part in params.get("pruners", [params]):
        assert part["positions"] in ("kept", "repacked")
    assert params["newlines"] == "kept"


@functools.cache
def rounded(model):
    """The model and inputs with a picture and with none in bfloat16."""
    loaded = model_of(model)
    inputs = inputs_of(loaded, drawn_samples()[1::2])
    values = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs.items()}
    return copy.deepcopy(loaded.model).to(torch.bfloat16), values


@pytest.mark.exhaustive  # by default test_mixed_precision.py asks each method
@torch.no_grad()
def test_bfloat16_keeps_as_many(loaded, seen, pruner):
    (model, inputs), exact = rounded(loaded.name), seen[0]
    with pruner(model) as trace:
        logits = model(**inputs, logits_to_keep=1).logits
    assert logits.isfinite().all()
    slack = BY_CONTENT.get(pruner.name, 0) * exact.visual_tokens[1::2]
    for wide, narrow in zip(exact.visual_out, trace.visual_out, strict=True):
        assert ((wide[1::2] - narrow).abs() <= slack).all()


@one_model
@torch.no_grad()
def test_flops_are_those_that_torch_counts(loaded, samples, pruner):
    inputs = inputs_of(loaded, samples[:1])
    cost = count(loaded.model, inputs, pruner)
    with pruner(loaded.model):
        seen = torch_flops(loaded.model, **inputs).get_total_flops()
    # Adapters of LLaVA-HR's tower resample by products that are no multiply-accumulates of the model.
    assert cost.total == pytest.approx(seen, rel=1e-3)
    assert seen - (cost.total - cost.scoring) == pytest.approx(cost.scoring, rel=0.05, abs=1e-3 * seen)


@pytest.fixture(scope="module")
def dense(loaded, samples):
    """Questions about a picture, and what the unpruned model makes of them."""
    inputs = inputs_of(loaded, samples[:2])
    with torch.no_grad():
        return inputs, loaded.model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)


@pytest.mark.product(strength=1, without=lambda loaded, method: method in UNABLE[loaded])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in NEVER_DENSE])
@torch.no_grad()
def test_next_to_nothing_pruned_is_next_to_dense(method, loaded, dense):
    inputs, unpruned = dense
    with near(method, loaded.name, 0.01, 0.02, 0.04, 0.08)(loaded.model):
        pruned = loaded.model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)
    assert (unpruned == pruned).all()


@pytest.fixture(scope="module")
def asked(loaded):
    """Prompts whose saving is measured."""
    drawn = [(Image.open(io.BytesIO(data)).convert("RGB"), text) for data, text in calibration_samples(samples=ASKED)]
    return encode(loaded, [text for _, text in drawn], [[picture] for picture, _ in drawn])


@pytest.mark.product(strength=1, without=lambda loaded, method, reduction: method in UNABLE[loaded])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("method", [name for name in [*METHODS, *COMPOSED] if "fitprune" not in name])
@torch.no_grad()
def test_the_measured_reduction_is_the_one_asked_for(method, reduction, loaded, asked):
    pruner, tally = near(method, loaded.name, reduction), Tally(loaded.model.config)
    with pruner(loaded.model) as trace:
        loaded.model(**asked, logits_to_keep=1)
    tally.add(batch_cost(loaded.model.config, asked, trace, [1] * len(asked["input_ids"])))
    assert tally.reduction() == pytest.approx(reduction, abs=TOLERANCE)


def test_which_methods_cannot_run_at_all(loaded):
    unable = set()
    for method in [*METHODS, *COMPOSED]:
        try:
            near(method, loaded.name, 0.5, 0.6, 0.4, 0.7, 0.3)
        except pytest.skip.Exception:
            unable.add(method)
    assert unable == UNABLE.get(loaded.name, set())
