"""Copies, replicas, wrappers of a pruned model, and modules that are replaced in it: right, or refused in one line."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from baselines import FasterVLM, FastV
from fitprune import Composed, FitPrune, Recipe, UnsupportedModel
from fitprune.engine.image_cache import remembering_images
from fitprune.models.reader import Reader
from tests.support.models import build, kept, new_tokens, prompt

pytestmark = pytest.mark.releases
FITPRUNE, TOWER = FitPrune(Recipe([9, 0, 12], 36)), FasterVLM(12, layer=-1, visual_tokens=36)
PRUNERS = [FITPRUNE, TOWER]


@pytest.fixture
def model():
    return build("llama", 3)


@pytest.fixture
def inputs(model):
    return prompt(model, [3, "image", 6], seed=1)


@pytest.fixture(scope="module")
def alone():
    """A process group of this process only."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def one_line(error):
    assert "\n" not in str(error.value)
    assert 20 < len(str(error.value)) < 300


def of_the_engine(value):
    """Whether an attribute's value, or a hook, is the engine's."""
    function = getattr(value, "__func__", getattr(value, "func", value))
    home = getattr(function, "__globals__", {}).get("__name__", type(value).__module__)
    return home.startswith("fitprune") or getattr(value, "_attn_implementation", None) == "fitprune"


def traces(model):
    """What the engine has left on a model, by the names of modules and attributes. What reads its questions is the model's."""
    return [
        (name, attribute)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if not isinstance(value, Reader) and any(map(of_the_engine, value.values() if isinstance(value, dict) else [value]))
    ]


def darker(model):
    """The model with another tower, so that whose tower encodes shows."""
    with torch.no_grad():
        for weight in model.model.vision_tower.parameters():
            weight.mul_(0.7)
    return model


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_a_deep_copy_is_of_the_model_as_it_was(model, inputs, pruner):
    with torch.no_grad():
        dense = new_tokens(model, inputs)
        names = {name: set(vars(module)) for name, module in model.named_modules()}
        changed = new_tokens(darker(copy.deepcopy(model)), inputs)
        with pruner(model) as trace:
            pruned = model(**inputs).logits
            layers = kept(trace)
            twin = copy.deepcopy(model)
            assert traces(model)
            assert traces(twin) == []
            assert torch.equal(new_tokens(twin, inputs), dense)
            assert torch.equal(model(**inputs).logits, pruned)
            assert kept(trace) == layers
        assert torch.equal(new_tokens(twin, inputs), dense)
        assert {name: set(vars(module)) for name, module in twin.named_modules()} == names
        assert torch.equal(new_tokens(darker(twin), inputs), changed)
        assert torch.equal(new_tokens(model, inputs), dense)


def test_a_deep_copy_inside_several_contexts(model, inputs):
    with torch.no_grad():
        dense = new_tokens(model, inputs)

        # A generator may have a context of its own inside another's.
        def entered():
            with FastV(k=1, r=0.4)(model):
                yield

        with remembering_images(model), Composed([FITPRUNE, TOWER])(model):
            other = entered()
            next(other)
            twin = copy.deepcopy(model)
            other.close()
        assert traces(twin) == traces(model) == []
        assert torch.equal(new_tokens(twin, inputs), dense)


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
@pytest.mark.parametrize("way", ["pickle", "torch.save"])
def test_a_pickled_model_is_the_model_as_it_was(inputs, pruner, way):
    model, file = build("llama", 3), io.BytesIO()
    fresh = copy.deepcopy(model)
    with pruner(model):
        pickle.dump(model, file) if way == "pickle" else torch.save(model, file)
    file.seek(0)
    twin = pickle.load(file) if way == "pickle" else torch.load(file, weights_only=False)
    assert traces(twin) == []
    with torch.no_grad():
        assert torch.equal(new_tokens(twin, inputs), new_tokens(fresh, inputs))


def test_a_layer_may_be_copied_alone(model):
    layer = model.model.language_model.layers[1]
    names = set(vars(layer))
    with FITPRUNE(model):
        twin = copy.deepcopy(layer)
    assert set(vars(twin)) == names
    assert twin.self_attn.config is not layer.self_attn.config
    assert not twin.self_attn.o_proj._forward_pre_hooks


def test_a_forward_that_stood_on_a_layer_before_is_copied(model, inputs):
    layer = model.model.language_model.layers[1]
    layer.forward = layer.forward
    with FITPRUNE(model):
        twin = copy.deepcopy(model)
    own = twin.model.language_model.layers[1]
    assert own.forward.__self__ is own
    assert layer.forward.__self__ is layer


class OddState(nn.Linear):
    """A projection whose state is no dictionary."""

    def __reduce__(self):
        return OddState, (self.in_features, self.out_features), (None, vars(self))

    def __setstate__(self, state):
        super().__setstate__(state[1])


class OddCopy(nn.Linear):
    """A projection that copies its attributes itself."""

    def __deepcopy__(self, memo):
        twin = memo[id(self)] = OddCopy.__new__(OddCopy)
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin


class Remade(nn.Linear):
    """A projection that is made anew in place of a copy."""

    def __reduce__(self):
        return Remade, (self.in_features, self.out_features)


@pytest.mark.parametrize("kind", [OddState, OddCopy])
def test_a_module_that_copies_itself_is_refused(model, kind):
    attention = model.model.language_model.layers[1].self_attn
    attention.o_proj = kind(attention.o_proj.in_features, attention.o_proj.out_features)
    with FITPRUNE(model), pytest.raises(UnsupportedModel, match=f"a {kind.__name__} copies or pickles itself") as error:
        copy.deepcopy(model)
    one_line(error)
    assert isinstance(copy.deepcopy(model).model.language_model.layers[1].self_attn.o_proj, kind)


def test_a_module_that_is_made_anew_is_clean(model):
    attention = model.model.language_model.layers[1].self_attn
    attention.o_proj = Remade(attention.o_proj.in_features, attention.o_proj.out_features)
    with FITPRUNE(model):
        assert traces(copy.deepcopy(model)) == []


def test_a_pruned_model_is_saved_as_it_was(model, inputs, tmp_path):
    with FITPRUNE(model):
        model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(new_tokens(type(model).from_pretrained(tmp_path), inputs), new_tokens(model, inputs))


class Adapter(nn.Module):
    """A projection with a low-rank part beside it, as LoRA puts it around one."""

    def __init__(self, base):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.base_layer = base
        self.down = nn.Parameter(torch.randn(2, base.in_features, generator=generator))
        self.up = nn.Parameter(torch.randn(base.out_features, 2, generator=generator))

    def forward(self, x):
        return self.base_layer(x) + x @ self.down.T @ self.up.T


def adapted(parent, name):
    setattr(parent, name, Adapter(getattr(parent, name)))


def other_attention(layer, name):
    """A new attention module with the same weights."""
    old = layer.self_attn
    own = vars(old)["config"]
    layer.self_attn = type(old)(getattr(own, "_observed_config", own), old.layer_idx)
    layer.self_attn.load_state_dict(old.state_dict())


REPLACED = {
    "o_proj": (lambda model: model.model.language_model.layers[2].self_attn, "o_proj", adapted),
    "q_proj": (lambda model: model.model.language_model.layers[0].self_attn, "q_proj", adapted),
    "down_proj": (lambda model: model.model.language_model.layers[2].mlp, "down_proj", adapted),
    "self_attn": (lambda model: model.model.language_model.layers[2], "self_attn", other_attention),
    "tower's k_proj": (lambda model: model.model.vision_tower.encoder.layers[-1].self_attn, "k_proj", adapted),
}


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("what", REPLACED)
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_what_is_replaced_inside_counts_from_the_next_prefill_on(inputs, pruner, what):
    find, name, replace = REPLACED[what]
    model, expected = build("llama", 3), build("llama", 3)
    replace(find(expected), name)
    with torch.no_grad():
        dense = new_tokens(expected, inputs)
        with pruner(expected) as own:
            answer, logits = new_tokens(expected, inputs), expected(**inputs).logits
        with pruner(model) as trace:
            model(**inputs)
            replace(find(model), name)
            for _ in range(2):
                assert torch.equal(new_tokens(model, inputs), answer)
                assert torch.equal(model(**inputs).logits, logits)
                assert kept(trace) == kept(own)
            twin = copy.deepcopy(model)
        assert torch.equal(new_tokens(model, inputs), dense)
        assert torch.equal(new_tokens(twin, inputs), dense)
    assert traces(twin) == traces(model) == []


def test_a_layer_that_is_replaced_inside_is_refused(model, inputs):
    layers = model.model.language_model.layers
    other = build("llama", 3, seed=1).model.language_model.layers[1]
    with torch.no_grad():
        with FITPRUNE(model):
            layers[1] = other
            with pytest.raises(UnsupportedModel, match="layer 1, or its forward, was replaced") as error:
                model(**inputs)
        one_line(error)
        with FITPRUNE(model) as trace:
            model(**inputs)
        assert len(trace.kept[2][0]) == 15


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_layer_whose_forward_is_taken_off_inside_is_refused(model, inputs, index):
    def taken_off():
        with torch.no_grad(), FITPRUNE(model):
            layer = model.model.language_model.layers[index]
            own = layer.forward
            layer.forward = own.layer.forward
            try:
                model(**inputs)
            finally:
                layer.forward = own

    with pytest.raises(UnsupportedModel, match=f"layer {index}, or its forward, was replaced") as error:
        taken_off()
    one_line(error)


def test_a_decoder_that_is_replaced_inside_is_refused(model, inputs):
    with torch.no_grad(), FITPRUNE(model):
        model.model.language_model = build("llama", 3, seed=1).model.language_model
        with pytest.raises(UnsupportedModel, match="another decoder") as error:
            model(**inputs)
    one_line(error)


def test_an_output_projection_that_is_no_module_call_is_refused(model, inputs):
    """Fused into one product by someone."""
    attention = model.model.language_model.layers[0].self_attn

    class Inline(nn.Linear):
        def __call__(self, x):
            return nn.functional.linear(x, self.weight)

    attention.o_proj.__class__ = Inline
    with torch.no_grad(), FITPRUNE(model), pytest.raises(UnsupportedModel, match="does not call its o_proj") as error:
        model(**inputs)
    one_line(error)


def replica(module):
    """A replica as `torch.nn.parallel.replicate` makes one for a device."""
    modules = list(module.modules())
    replicas = {id(one): one._replicate_for_data_parallel() for one in modules}
    for one in modules:
        own = replicas[id(one)]
        for name, child in one._modules.items():
            setattr(own, name, replicas[id(child)])
        for name, value in [*one._parameters.items(), *one._buffers.items()]:
            setattr(own, name, value)
    return replicas[id(module)]


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_a_replica_of_a_pruned_model_is_refused(model, inputs, pruner):
    with torch.no_grad():
        dense = model(**inputs).logits
        assert torch.equal(replica(model)(**inputs).logits, dense)
        with pruner(model) as trace, pytest.raises(UnsupportedModel, match=r"replica by nn\.DataParallel") as error:
            replica(model)(**inputs)
    one_line(error)
    assert trace.kept == []


def test_wrappers_that_call_the_model_as_it_is_may_be_pruned(model, inputs, alone):
    with torch.no_grad(), FITPRUNE(model) as expected:
        logits = model(**inputs).logits
    for wrapped in (nn.DataParallel(model), nn.parallel.DistributedDataParallel(model)):
        with torch.no_grad(), FITPRUNE(wrapped) as trace:
            assert torch.equal(wrapped(**inputs).logits, logits)
        assert kept(trace) == kept(expected)


def test_weights_that_are_split_over_devices_are_refused(model, alone):
    projection = model.model.language_model.layers[0].self_attn.q_proj
    projection.weight = nn.Parameter(distribute_tensor(projection.weight.data, init_device_mesh("cpu", (1,)), [Shard(0)]))
    with pytest.raises(UnsupportedModel, match=r"q_proj\.weight is a DTensor") as error, FITPRUNE(model):
        pass
    one_line(error)


def test_a_model_loaded_with_a_plan_for_several_devices_is_refused(model):
    model._tp_size = 2
    with pytest.raises(UnsupportedModel, match="tp_size=2") as error, FITPRUNE(model):
        pass
    one_line(error)


def test_a_model_lives_as_long_as_its_context_and_no_longer():
    model = build("llama", 3)
    inputs, gone = prompt(model, [3, "image", 6]), weakref.ref(model)
    context = FITPRUNE(model)
    trace = context.__enter__()
    with torch.no_grad():
        model(**inputs)
    del model
    gc.collect()
    assert len(trace.kept) == 3
    context.__exit__(None, None, None)
    del context
    gc.collect()
    assert gone() is None
    assert len(trace.kept) == 3
