"""Work ahead in a thread: decoding, generating and encoding overlap, with bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


def prefetch(iterable: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Return a generator of the items of `iterable`, made in a thread up to `depth` (≥ 1) ahead.

    The thread starts with the first item asked for. An exception of the iterable is raised here in its place, after
    the items before it. Closing the generator (or dropping it) stops the thread after the item it is at, closes the
    iterable in that thread if it is a generator, and returns when the thread has ended.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    return _consume(_Channel(iterable, depth))


def _consume(channel: _Channel[T]) -> Generator[T, None, None]:
    # daemon: an interpreter that exits on an error elsewhere does not wait for a half-made item.
    thread = threading.Thread(target=channel.produce, name="prefetch", daemon=True)
    try:
        thread.start()  # inside: a signal may come while this waits for the thread to begin
        yield from channel
    finally:
        channel.stop()
        if thread.ident is not None:
            thread.join()


class _Channel(Generic[T]):
    """A bounded queue that either side can end."""

    def __init__(self, iterable: Iterable[T], depth: int) -> None:
        self._iterable = iterable
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._finished = False
        self._error: BaseException | None = None

    def produce(self) -> None:
        error: BaseException | None = None
        iterator = None
        try:
            iterator = iter(self._iterable)
            for item in iterator:
                taken = self._put(item)
                del item  # or it would be held while the next one is made
                if not taken:
                    break
        except BaseException as raised:  # everything: the consumer's thread is where it has to surface
            error = raised
        try:
            if isinstance(iterator, Generator):
                iterator.close()
        except BaseException as raised:
            error = error or raised
        with self._changed:
            self._error = error
            self._finished = True
            self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._depth)
            if not self._stopped:
                self._items.append(item)
                self._changed.notify_all()
            return not self._stopped

    def __iter__(self) -> Generator[T, None, None]:
        while self._ready():
            yield self._pop()  # no name here: it would hold the item while the next one is waited for

    def _ready(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._finished)
            if not self._items and self._error is not None:
                raise self._error
            return bool(self._items)

    def _pop(self) -> T:
        with self._changed:
            self._changed.notify_all()
            return self._items.popleft()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
