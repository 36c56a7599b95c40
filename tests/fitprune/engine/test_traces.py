"""A trace per prefill: whose it is in threads and tasks, how many are kept, and that nothing is counted until it is read."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from baselines import FastV, PyramidDrop
from fitprune import FitPrune, Recipe
from fitprune.interface import attention, tokens
from fitprune.interface import trace as traces
from fitprune.scoring import column_sums
from tests.support.models import batch, build, kept, prompt

pytestmark = pytest.mark.releases
PRUNER = FitPrune(Recipe([9, 0, 12], 36))


@pytest.fixture(scope="module")
def model():
    return build("llama", 3)


@pytest.fixture(scope="module")
def prompts(model):
    """Prompts of one image, of two, and of none: with other numbers of visual tokens, and of text."""
    return [
        prompt(model, parts, seed=seed)
        for seed, parts in enumerate([[3, "image", 6], [2, "image", 5, "image", 4], [7], [4, "image", 2]])
    ]


def run(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def facts(trace):
    """All that a trace says, as lists."""
    return {
        "kept": [layer.tolist() for layer in trace.kept],
        "place": trace.place.tolist(),
        "visual": trace.visual_tokens.tolist(),
        "text": trace.text_tokens.tolist(),
        "in": [count.tolist() for count in trace.visual_in],
        "out": [count.tolist() for count in trace.visual_out],
        "macs": trace.scoring_macs,
    }


@pytest.fixture(scope="module")
def expected(model, prompts):
    """What the trace of each prompt says in a context of its own."""
    found = []
    for inputs in prompts:
        with PRUNER(model) as trace:
            run(model, inputs)
        found.append(facts(trace))
    assert len({str(one) for one in found}) == len(prompts)
    return found


def test_a_trace_is_empty_before_the_first_prefill(model):
    with PRUNER(model) as trace:
        assert facts(trace) == {"kept": [], "place": [], "visual": [], "text": [], "in": [], "out": [], "macs": []}
        assert trace.tower is None
        assert trace.prefills == []


def test_a_trace_is_of_the_latest_prefill_and_holds_no_other(model, prompts, expected):
    with PRUNER(model) as trace:
        for inputs, one in zip(prompts, expected, strict=True):
            run(model, inputs)
            assert facts(trace) == one
            assert [facts(prefill) for prefill in trace.prefills] == [one]
    assert facts(trace) == expected[-1]


def test_all_prefills_are_kept_where_they_are_asked_for(model, prompts, expected):
    with PRUNER(model, record_all=True) as trace:
        for inputs in prompts:
            with torch.no_grad():
                model.generate(**inputs, max_new_tokens=3, do_sample=False)
        first = trace.prefills[0]
        run(model, batch(prompts[:2]))
    assert [facts(prefill) for prefill in trace.prefills[:-1]] == expected
    assert facts(first) == expected[0]
    assert facts(trace) == facts(trace.prefills[-1])
    assert [kept(trace, row) for row in range(2)] == [kept(trace.prefills[row]) for row in range(2)]


def test_a_trace_read_in_a_thread_is_of_that_threads_own_prefills(model, prompts, expected):
    """Four threads in one context, in step with each other before every layer."""
    barrier = threading.Barrier(len(prompts), timeout=20)

    def in_step(*_):
        barrier.wait()

    hooks = [layer.register_forward_pre_hook(in_step) for layer in model.model.language_model.layers]

    def job(number):
        for _ in range(2):
            run(model, prompts[number])
            barrier.wait()
            own = facts(trace)
        return own

    try:
        with PRUNER(model, record_all=True) as trace, ThreadPoolExecutor(len(prompts)) as pool:
            assert list(pool.map(job, range(len(prompts)))) == expected
    finally:
        for hook in hooks:
            hook.remove()
    assert len(trace.prefills) == 2 * len(prompts)
    found = [facts(prefill) for prefill in trace.prefills]
    assert all(found.count(one) == 2 for one in expected)


def test_where_nothing_was_run_a_trace_is_of_the_latest_prefill_of_all(model, prompts, expected):
    """In a pool of threads that is older than the context, and through asyncio."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        with PRUNER(model) as trace:
            pool.submit(run, model, prompts[0]).result()
            assert facts(trace) == expected[0]
            asyncio.run(asyncio.to_thread(run, model, prompts[1]))
            assert facts(trace) == expected[1]
            run(model, prompts[3])
            pool.submit(run, model, prompts[0]).result()
            assert facts(trace) == expected[3]
            assert [facts(prefill) for prefill in trace.prefills] == [expected[0]]


def test_asyncio_tasks_in_one_context_read_their_own(model, prompts, expected):
    async def one(inputs):
        run(model, inputs)
        await asyncio.sleep(0)
        return facts(trace)

    async def all_at_once():
        return await asyncio.gather(*map(one, prompts))

    with PRUNER(model) as trace:
        assert asyncio.run(all_at_once()) == expected


def test_one_pruner_object_entered_twice_has_two_traces(model, prompts, expected):
    def inside():
        with PRUNER(model) as inner:
            run(model, prompts[0])
            yield facts(inner)

    with PRUNER(model) as outer:
        assert list(inside()) == [expected[0]]
        assert outer.kept == []


SCORING = [PRUNER, FastV(k=1, r=0.4), PyramidDrop([1, 2], [0.5, 0.25])]


@pytest.mark.parametrize("pruner", SCORING, ids=lambda pruner: pruner.name)
def test_what_scoring_cost_is_counted_when_it_is_read(model, prompts, pruner, monkeypatch):
    inputs = batch(prompts)
    with pruner(model) as trace:
        run(model, inputs)
    spent = trace.scoring_macs
    assert sum(spent) > 0

    def counts(*_):
        raise AssertionError("counted")

    with monkeypatch.context() as patch, pruner(model) as trace:
        patch.setattr(column_sums, "batch_pairs", counts)
        for reader in (attention, tokens, traces):
            patch.setattr(reader, "counted", counts)
        run(model, inputs)
        with pytest.raises(AssertionError, match="counted"):
            trace.scoring_macs  # noqa: B018
    assert trace.scoring_macs == spent


def test_a_trace_does_not_hold_what_was_scored(model, prompts, monkeypatch):
    """Neither queries and keys nor hidden states: it may be kept for every prompt of a long run."""
    with PRUNER(model) as trace:
        run(model, batch(prompts))
    held = []

    def walk(value):
        if isinstance(value, torch.Tensor):
            held.append(value)
        for cell in getattr(value, "__closure__", None) or ():
            walk(cell.cell_contents)
        if isinstance(value, list | tuple):
            list(map(walk, value))
        elif type(value).__module__.startswith("fitprune"):
            list(map(walk, vars(value).values()))

    walk(trace._prefills[-1])
    assert len(held) > 10
    assert not any(tensor.is_floating_point() for tensor in held)
