"""Preparing ahead: order, bounds, errors, and a thread that does not outlive its use."""

import threading
import time

import pytest

from harness.answering.ahead import ahead


def test_everything_in_order():
    with ahead(lambda item: item * item, range(50), depth=3) as squares:
        assert list(squares) == [item * item for item in range(50)]


def test_depth_zero_makes_each_where_it_is_asked_for():
    made = []
    with ahead(made.append, range(3), depth=0) as results:
        assert made == []
        next(results)
        assert made == [0]
    assert made == [0]


def test_no_more_than_the_depth_is_made_before_it_is_asked_for():
    made, full = [], threading.Event()

    def make(item):
        made.append(item)
        if len(made) == 3:  # two wait in the queue, the third is in the thread's hands
            full.set()
        return item

    with ahead(make, range(100), depth=2) as results:
        assert full.wait(30)
        time.sleep(0.2)  # were there no bound, more would be made now
        assert made == [0, 1, 2]
        assert next(results) == 0


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_an_error_comes_in_its_place(depth):
    def make(item):
        if item == 2:
            raise KeyError("two")
        return item

    with ahead(make, range(5), depth) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(KeyError, match="two"):
            next(results)


def test_an_error_of_the_items_is_raised_too():
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"), ahead(str, items()) as results:
        assert list(results) == ["1"]


@pytest.mark.parametrize("leave", [lambda: None, lambda: 1 / 0], ids=["early", "by an error"])
def test_the_thread_ends_with_the_context(leave):
    before = threading.active_count()
    try:
        with ahead(lambda item: item, iter(int, 1), depth=2) as results:  # endless
            next(results)
            leave()
    except ZeroDivisionError:
        pass
    assert threading.active_count() == before
