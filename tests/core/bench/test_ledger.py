"""Time is booked once, to the innermost account, in every thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from lipsync_core.bench.ledger import FRAMEWORK, Ledger


class _Clock:
    """CPU seconds as a test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_inner_account_pauses_the_outer() -> None:
    clock = _Clock()
    ledger = Ledger(clock)
    ledger.start()
    clock.now += 1
    with ledger.spend("outer"):
        clock.now += 2
        with ledger.spend("inner"):
            clock.now += 4
        clock.now += 8
    clock.now += 16
    ledger.stop()
    assert {name: (spent.cpu, spent.calls) for name, spent in ledger.accounts.items()} == {
        FRAMEWORK: (17, 0),
        "outer": (10, 1),
        "inner": (4, 1),
    }
    assert ledger.cpu() == 31


def test_a_generator_is_booked_while_it_works_and_not_while_it_waits() -> None:
    clock = _Clock()
    ledger = Ledger(clock)

    def numbers() -> Iterator[int]:
        for number in range(3):
            clock.now += 2
            yield number
        clock.now += 1

    ledger.start()
    for _ in ledger.watch("numbers", numbers()):
        clock.now += 10
    ledger.stop()
    assert ledger.accounts["numbers"].cpu == 7
    assert ledger.accounts[FRAMEWORK].cpu == 30


def test_an_account_is_closed_by_an_error() -> None:
    clock = _Clock()
    ledger = Ledger(clock)
    ledger.start()

    def fails() -> None:
        clock.now += 3
        raise KeyError("planted")

    with pytest.raises(KeyError):
        ledger.wrap("fails", fails)()
    clock.now += 1
    ledger.stop()
    assert (ledger.accounts["fails"].cpu, ledger.accounts[FRAMEWORK].cpu) == (3, 1)


def test_each_thread_books_its_own_cpu_time() -> None:
    ledger = Ledger()

    def work() -> None:
        with ledger.spend("work"):
            began = time.thread_time()
            for _ in itertools.count():
                if time.thread_time() - began > 0.05:
                    break

    ledger.start()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.stop()
    assert ledger.accounts["work"].calls == 2
    assert ledger.accounts["work"].cpu >= 0.1
    assert ledger.accounts[FRAMEWORK].cpu < ledger.accounts["work"].cpu
