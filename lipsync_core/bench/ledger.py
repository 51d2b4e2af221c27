"""Where a job's time goes: exclusive wall and CPU seconds by account, over all Python threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

T = TypeVar("T")

FRAMEWORK: Final = "framework"
"""The account of whatever no other account claims."""


@dataclass(slots=True)
class Spent:
    """Seconds of an account: `wall` on the clock, `cpu` of the threads that were in it; `calls` into it."""

    wall: float = 0.0
    cpu: float = 0.0
    calls: int = 0


@dataclass(slots=True)
class _Thread:
    """One thread's open accounts, the innermost last, and the clocks as they were at the latest change."""

    stack: list[str] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0


class Ledger:
    """Books each thread's time to the account it is in; entering another pauses the one outside.

    A thread that waits costs no CPU. A thread begun while the ledger runs starts in `FRAMEWORK`, and its end after
    the last account closed is not booked. Threads that libraries start themselves are in no account: the process's
    CPU time less `cpu()` is theirs.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """clock: what CPU seconds are read from. `time.process_time` suits work in one thread, helpers included."""
        self.accounts: dict[str, Spent] = {}
        self._clock = clock
        self._threads = threading.local()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin with empty accounts; this thread is in `FRAMEWORK` from here."""
        self.accounts = {}
        self._threads = threading.local()
        self._threads.mine = _Thread([], time.perf_counter(), self._clock())

    def stop(self) -> None:
        """Book what this thread spent since the last change."""
        self._book(self._mine())

    def cpu(self) -> float:
        """Return the CPU seconds of all accounts."""
        return sum(spent.cpu for spent in self.accounts.values())

    @contextmanager
    def spend(self, account: str) -> Iterator[None]:
        """Book what is inside to `account`."""
        mine = self._mine()
        self._book(mine)
        mine.stack.append(account)
        try:
            yield
        finally:
            self._book(mine)
            mine.stack.pop()
            with self._lock:
                self._account(account).calls += 1

    def watch(self, account: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, what it takes to make each booked to `account`."""
        with self.spend(account):
            iterator = iter(items)
        while True:
            with self.spend(account):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def wrap(self, account: str, call: Callable[..., T]) -> Callable[..., T]:
        """Return `call` with its time booked."""

        def timed(*arguments: Any, **named: Any) -> T:
            with self.spend(account):
                return call(*arguments, **named)

        return timed

    def _mine(self) -> _Thread:
        mine: _Thread | None = getattr(self._threads, "mine", None)
        if mine is None:  # a new thread's own CPU clock begins at 0, so its first steps are booked too
            mine = self._threads.mine = _Thread([], time.perf_counter(), 0.0)
            if self._clock is not time.thread_time:
                mine.cpu = self._clock()
        return mine

    def _book(self, mine: _Thread) -> None:
        wall, cpu = time.perf_counter(), self._clock()
        with self._lock:
            spent = self._account(mine.stack[-1] if mine.stack else FRAMEWORK)
            spent.wall += wall - mine.wall
            spent.cpu += cpu - mine.cpu
        mine.wall, mine.cpu = wall, cpu

    def _account(self, name: str) -> Spent:
        return self.accounts.setdefault(name, Spent())
