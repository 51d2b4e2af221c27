"""This process's memory: what it took at most, and giving back pages that are not needed any more.

Frames are freed in another thread than the one that made them, and small arrays lie between large ones; glibc's malloc
keeps such holes. Measured on 1080x1920: a job peaked at 816 MB with one heap a thread and at 665 MB with a single one,
at the same CPU time. With large arrays outside it, the first minute rendered of a ten-minute 720p job peaked at 296 MB
instead of 336 MB, for 4 % more CPU time. Where that heap has a hole of their size, large arrays take it all the same
and break it up: while the mouths of ten minutes were looked at, it grew from 76 to 149 MB with 56 MB in use. `tidied`
loops give the holes back as they go.

What such a loop or a queue hands on it must not hold itself while the next item is made (`del`), nor may an encoder
that is done: with those held, the heap of a ten-minute job went on growing from one segment to the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import mmap
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # glibc's malloc.h
_LARGE_BYTES = 4 << 20  # such an array goes back to the system when it is freed; by default glibc raises that to 32 MB


def keep_heap_small() -> None:
    """Let glibc keep one heap for all threads begun after this call, and large arrays out of it; else does nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc has no mallopt
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_ARENA_MAX, 1)
            libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Return freed memory to the system, so that one pass's leavings do not add to the next one's peak."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def tidied(items: Iterable[T], every: int) -> Iterator[T]:
    """Yield the items, giving freed memory back to the system after each `every` of them and after the last."""
    count = 0
    for item in items:
        yield item
        del item  # or it would be held while the next one is made
        count += 1  # noqa: SIM113 - `enumerate` holds the item too
        if count % every == 0:
            give_back()
    give_back()


def drop_pages(address: int, size: int) -> None:
    """Let go of the pages of a mapped file that lie whole in these bytes; they are read again if they are used again.

    Only for files mapped privately and not written to: other memory would lose its content.
    """
    if sys.platform == "linux":
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def peak_rss() -> int | None:
    """Return the highest resident set size of this process so far, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux's getrusage also counts the process that started this one, before its exec.
        lines = status.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows has no such module
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024
