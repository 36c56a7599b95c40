"""A pruner leaves no trace on the model, and pruners of several threads and models do not disturb each other."""

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from baselines.before_decoder.fastervlm import FasterVLM
from baselines.controls.dense import Dense
from fitprune import Composed, FitPrune, FitPruneError, Pruner, Recipe
from tests.support.models import build, kept, prompt

pytestmark = pytest.mark.releases
FEW, MANY = Recipe([3, 0, 4], 36), Recipe([15, 9, 6], 36)


@pytest.fixture
def model():
    model = build("qwen2", 3)
    # transformers installs hooks of its own, for hidden states, on the first forward.
    logits(model, prompt(model, [3, "image", 5]))
    return model


def state(model):
    """All that a pruner could leave behind: every module's attributes, hook tables and configurations, by identity."""
    found = {}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, dict):
                found[name, attribute] = (id(value), [(key, id(entry)) for key, entry in value.items()])
            else:
                found[name, attribute] = id(value)
        config = getattr(module, "config", None)
        if config is not None:
            found[name, "config's content"] = {key: repr(value) for key, value in vars(config).items()}
    return found


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def test_after_a_normal_exit(model):
    inputs = prompt(model, [3, "image", 5])
    before, plain = state(model), logits(model, inputs)
    with FitPrune(MANY)(model):
        assert logits(model, inputs).shape != plain.shape
        assert state(model) != before
    assert state(model) == before
    assert torch.equal(logits(model, inputs), plain)


def test_after_an_error_in_the_context(model):
    before = state(model)
    with pytest.raises(ZeroDivisionError), FitPrune(MANY)(model):
        raise ZeroDivisionError(logits(model, prompt(model, [3, "image", 5])))
    assert state(model) == before


@pytest.mark.parametrize("where", ["mlp", "self_attn", "input_layernorm"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_after_an_interrupt_inside_a_layer(model, where, kind):
    inputs = prompt(model, [3, "image", 5])
    plain = logits(model, inputs)
    with FitPrune(MANY)(model):
        pruned = logits(model, inputs)

    def interrupt(*_):
        raise kind

    module = getattr(model.model.language_model.layers[1], where)
    handle = module.register_forward_pre_hook(interrupt)
    before = state(model)
    with pytest.raises(kind), FitPrune(MANY)(model):
        logits(model, inputs)
    assert state(model) == before
    with FitPrune(MANY)(model):
        with pytest.raises(kind):
            logits(model, inputs)
        handle.remove()
        # The same context goes on, and the interrupted forward has left nothing in it.
        assert torch.equal(logits(model, inputs), pruned)
    assert torch.equal(logits(model, inputs), plain)


def test_after_a_pruner_that_fails(model):
    class Faulty(Pruner):
        name = "faulty"

        def before_layer(self, layer, tokens):
            raise RuntimeError("faulty before a layer")

    class FaultyPlan(Pruner):
        name = "faulty-plan"

        def observed_layers(self, layers):
            raise RuntimeError("faulty plan")

    before = state(model)
    with pytest.raises(RuntimeError, match="before a layer"), Faulty()(model):
        logits(model, prompt(model, [3, "image", 5]))
    assert state(model) == before
    with pytest.raises(RuntimeError, match="plan"), FaultyPlan()(model):
        pass
    assert state(model) == before


def test_the_attention_map_of_a_dense_run_can_be_taken_after_pruning():
    """The models' own output capture is not damaged by a context."""
    model = build("llama", 3, attention="eager")
    inputs = prompt(model, [3, "image", 5])
    with FitPrune(MANY)(model):
        logits(model, inputs)
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions
    assert [one.shape for one in maps] == [(1, 4, 44, 44)] * 3


def test_one_inside_the_other_is_refused_and_the_outer_one_goes_on(model):
    inputs = prompt(model, [3, "image", 5])
    before = state(model)

    def further(pruner):
        with pruner(model):
            pass

    with FitPrune(FEW)(model) as outer:
        few, inside = logits(model, inputs), state(model)
        for pruner in (FitPrune(MANY), Dense(), FasterVLM(12, layer=-1, visual_tokens=36), Composed([FitPrune(MANY)])):
            with pytest.raises(FitPruneError, match=r"^fitprune is active .* for \w+ after it.* Composed\(.*$"):
                further(pruner)
        assert state(model) == inside
        assert [len(layer) for layer in kept(outer)] == [33, 33, 29]
        assert torch.equal(logits(model, inputs), few)
    assert state(model) == before


def test_contexts_of_generators_left_out_of_order(model):
    inputs = prompt(model, [3, "image", 5])
    before = state(model)

    def entered(recipe):
        with FitPrune(recipe)(model) as trace:
            yield trace

    first, second = entered(FEW), entered(MANY)
    next(first)
    trace = next(second)
    first.close()
    logits(model, inputs)
    assert [len(layer) for layer in kept(trace)] == [21, 12, 6]
    second.close()
    assert state(model) == before


def together(*jobs):
    """Runs the jobs in threads that start at once, each a few times; gives what each gave."""
    barrier = threading.Barrier(len(jobs))

    def run(job):
        barrier.wait()
        return [job() for _ in range(4)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def job(model, pruner, inputs):
    def run():
        with torch.no_grad(), pruner(model) as trace:
            tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, -4:].tolist()
            return kept(trace), tokens

    return run


def test_two_models_in_two_threads(model):
    other = build("llama", 3, seed=4)
    logits(other, prompt(other, [3, "image", 5]))
    jobs = [job(m, FitPrune(r), prompt(m, [3, "image", 5])) for m, r in ((model, FEW), (other, MANY))]
    serial = [run() for run in jobs]
    before = state(model), state(other)
    assert together(*jobs) == [[result] * 4 for result in serial]
    assert (state(model), state(other)) == before


def test_one_model_in_three_threads(model):
    inputs = [prompt(model, [3, "image", 5], seed) for seed in range(3)]
    pruners = [FitPrune(FEW), FitPrune(MANY), Dense()]
    jobs = [job(model, pruner, own) for pruner, own in zip(pruners, inputs, strict=True)]
    serial = [run() for run in jobs]
    before = state(model)
    assert together(*jobs) == [[result] * 4 for result in serial]
    assert state(model) == before


def test_one_pruner_object_serves_two_threads(model):
    pruner = FitPrune(MANY)
    jobs = [job(model, pruner, prompt(model, [3, "image", 5], seed)) for seed in range(2)]
    serial = [run() for run in jobs]
    assert serial[0] != serial[1]
    assert together(*jobs) == [[result] * 4 for result in serial]


def test_a_thread_started_inside_is_pruned(model):
    inputs = prompt(model, [3, "image", 5])
    with FitPrune(MANY)(model) as trace:
        here = logits(model, inputs)
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(logits, model, inputs).result()
    assert torch.equal(here, there)
    assert [len(layer) for layer in kept(trace)] == [21, 12, 6]


def test_an_exit_in_one_thread_leaves_the_other_pruned(model):
    inputs = prompt(model, [3, "image", 5])
    entered, leave = threading.Event(), threading.Event()

    def other():
        with FitPrune(FEW)(model):
            entered.set()
            leave.wait(10)

    with FitPrune(MANY)(model) as trace:
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        leave.set()
        thread.join()
        logits(model, inputs)
        assert [len(layer) for layer in kept(trace)] == [21, 12, 6]


def test_two_asyncio_tasks_each_have_their_own(model):
    """They take turns between entering, prefills and leaving, in one thread."""
    inputs = prompt(model, [3, "image", 5])
    expected = [job(model, FitPrune(recipe), inputs)() for recipe in (FEW, MANY)]
    before = state(model)

    async def one(recipe, naps):
        with FitPrune(recipe)(model) as trace:
            found = []
            for _ in range(3):
                await asyncio.sleep(0)
                # Not around the whole task: what torch remembers of it is the thread's, and tasks leave it in another order.
                with torch.no_grad():
                    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, -4:].tolist()
                found.append((kept(trace), tokens))
            for _ in range(naps):
                await asyncio.sleep(0)
        return found

    async def both():
        return await asyncio.gather(one(FEW, 0), one(MANY, 3))

    assert asyncio.run(both()) == [[result] * 3 for result in expected]
    assert state(model) == before


def test_two_generators_in_turns_each_have_their_own(model):
    """A generator has no execution context of its own: both are entered and run in the caller's."""
    inputs = prompt(model, [3, "image", 5])
    before = state(model)

    @contextlib.contextmanager
    def helper(recipe):
        with FitPrune(recipe)(model) as trace:
            yield trace

    def runs(recipe, enter):
        with enter(recipe) as trace:
            for _ in range(3):
                logits(model, inputs)
                yield [len(layer) for layer in kept(trace)]

    for enter in (helper, lambda recipe: FitPrune(recipe)(model)):
        few, many = runs(FEW, enter), runs(MANY, enter)
        with Dense()(model) as dense:
            for _ in range(3):
                assert next(few) == [33, 33, 29]
                assert next(many) == [21, 12, 6]
                # Both generators are suspended: the caller's own rules.
                logits(model, inputs)
                assert [len(layer) for layer in kept(dense)] == [36] * 3
        few.close()
        with helper(FEW) as trace:
            logits(model, inputs)
            assert [len(layer) for layer in kept(trace)] == [33, 33, 29]
        many.close()
        assert state(model) == before


def test_generators_in_execution_contexts_of_their_own(model):
    """Entered in one execution context, closed in another."""
    inputs = prompt(model, [3, "image", 5])
    before = state(model)

    def runs(recipe):
        with FitPrune(recipe)(model) as trace:
            while True:
                logits(model, inputs)
                yield [len(layer) for layer in kept(trace)]

    few, many = runs(FEW), runs(MANY)
    own = contextvars.copy_context(), contextvars.copy_context()
    for _ in range(2):
        assert own[0].run(next, few) == [33, 33, 29]
        assert own[1].run(next, many) == [21, 12, 6]
    few.close()
    many.close()
    assert state(model) == before


def test_threads_that_inherit_the_execution_context_do_not_share_their_calls(model):
    inputs = [prompt(model, [3, "image", 5], seed) for seed in range(3)]

    def run(own):
        with torch.no_grad():
            return model.generate(**own, max_new_tokens=4, do_sample=False)[0, -4:].tolist()

    async def all_at_once():
        return await asyncio.gather(*(asyncio.to_thread(run, own) for own in inputs))

    with FitPrune(MANY)(model):
        expected = [run(own) for own in inputs]
        for _ in range(4):
            assert asyncio.run(all_at_once()) == expected


def test_a_failing_undo_leaves_no_other_patch_in_place(model):
    """Someone took the forward of one layer off inside the context."""
    inputs = prompt(model, [3, "image", 5])
    before, plain = state(model), logits(model, inputs)
    layers = model.model.language_model.layers
    with pytest.raises(AttributeError, match="forward"), FitPrune(MANY)(model):
        del layers[1].forward
    assert state(model) == before
    assert torch.equal(logits(model, inputs), plain)
    with FitPrune(MANY)(model) as trace:
        logits(model, inputs)
        assert [len(layer) for layer in kept(trace)] == [21, 12, 6]
    assert state(model) == before


def test_a_failing_undo_in_the_tower_leaves_no_other_patch_in_place(model):
    before = state(model)
    with pytest.raises(AttributeError, match="forward"), FasterVLM(12, layer=-1, visual_tokens=36)(model):
        del model.model.vision_tower.encoder.layers[0].forward
    assert state(model) == before


def test_a_patch_that_cannot_be_put_on_is_taken_off_again(model):
    """Hooks on a model are put on one after the other; the last one fails."""
    before = state(model)
    attention = model.model.language_model.layers[2].self_attn
    projection = attention.o_proj
    attention.o_proj = None
    with pytest.raises(AttributeError), FitPrune(MANY)(model):
        pass
    attention.o_proj = projection
    assert state(model) == before
