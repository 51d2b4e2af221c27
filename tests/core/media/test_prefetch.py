"""Working ahead in a thread."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core.media.prefetch import prefetch


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name == "prefetch"] == []


@given(items=st.lists(st.integers()), depth=st.integers(1, 5))
def test_same_items_in_order(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth)) == items
    assert list(prefetch(iter(items), depth)) == items


@given(good=st.integers(0, 6), depth=st.integers(1, 4), error=st.sampled_from([ValueError, OSError, KeyboardInterrupt]))
def test_error_comes_after_the_items_before_it(good: int, depth: int, error: type[BaseException]) -> None:
    def source() -> Iterator[int]:
        yield from range(good)
        raise error("here")

    seen = []
    with pytest.raises(error, match="here"):
        seen.extend(prefetch(source(), depth))
    assert seen == list(range(good))


@given(taken=st.integers(0, 5), depth=st.integers(1, 4))
def test_closed_early(taken: int, depth: int) -> None:
    """The source is closed, in the thread that ran it, no more than `depth` and the one under way ahead."""
    made: list[int] = []
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                made.append(len(made))
                yield made[-1]
        finally:
            closed.append(threading.current_thread().name)

    stream = prefetch(endless(), depth)
    assert [next(stream) for _ in range(taken)] == list(range(taken))
    stream.close()
    assert len(made) <= taken + depth + 1
    assert closed == (["prefetch"] if taken else [])
    assert list(stream) == []


def test_dropped_without_closing() -> None:
    """Its thread ends."""
    before = set(threading.enumerate())
    stream = prefetch(iter(int, 1), 2)
    next(stream)
    (thread,) = set(threading.enumerate()) - before
    del stream
    thread.join(5)
    assert not thread.is_alive()


def test_works_ahead() -> None:
    """The next item is made while this one is used."""
    ahead = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        yield 1
        ahead.set()
        yield 2

    stream = prefetch(source(), 1)
    assert next(stream) == 0
    assert ahead.wait(5)
    assert list(stream) == [1, 2]


def test_bounded() -> None:
    made = []

    def source() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    stream = prefetch(source(), 3)
    next(stream)
    time.sleep(0.05)
    assert len(made) <= 1 + 3 + 1
    stream.close()


def test_error_on_closing_the_source_is_not_lost() -> None:
    def source() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise OSError("could not close")

    stream = prefetch(source(), 1)
    with pytest.raises(OSError, match="could not close"):
        list(stream)


@pytest.mark.parametrize("depth", [1, 3])
def test_only_what_waits_is_held(depth: int) -> None:
    """An item that was taken and dropped is gone, on both sides of the queue, before the next one is waited for."""

    class Item:
        pass

    made: list[weakref.ref[Item]] = []
    dropped = threading.Semaphore(0)

    def source() -> Iterator[Item]:
        for _ in range(4):
            item = Item()
            made.append(weakref.ref(item))
            yield item
            del item
            assert dropped.acquire(timeout=10)
            assert all(earlier() is None for earlier in made)

    stream = prefetch(source(), depth)
    for _ in range(4):
        item = next(stream)
        assert item is made[-1]()
        del item
        dropped.release()
    assert next(stream, None) is None


def test_nested() -> None:
    inner = prefetch(range(50), 2)
    assert list(prefetch((i * i for i in inner), 2)) == [i * i for i in range(50)]
    outer = prefetch(prefetch(iter(int, 1), 2), 2)
    next(outer)
    outer.close()


def test_depth() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        prefetch([1], 0)
