"""Peak memory is this process's own, and giving memory back is harmless everywhere."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lipsync_core.memory import drop_pages, give_back, keep_heap_small, peak_rss, tidied


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_rss()
    assert before is not None
    held = np.ones(60_000_000, np.uint8)
    after = peak_rss()
    assert after is not None
    assert after >= before
    assert after > held.nbytes


def test_a_large_parent_does_not_count() -> None:
    held = np.ones(300_000_000, np.uint8)
    code = "from lipsync_core.memory import peak_rss; print(peak_rss())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < held.nbytes


def test_freed_memory_goes_back_and_what_is_held_stays() -> None:
    keep_heap_small()
    held = [np.full(1000, i, np.int32) for i in range(2000)]
    give_back()
    assert all((array == i).all() for i, array in enumerate(held))


def test_a_tidied_loop_yields_everything_and_holds_nothing() -> None:
    made: list[weakref.ref[Thing]] = []

    class Thing:
        pass

    def things() -> Iterator[Thing]:
        for _ in range(5):
            assert all(earlier() is None for earlier in made)
            thing = Thing()
            made.append(weakref.ref(thing))
            yield thing
            del thing

    for thing in tidied(things(), 2):
        assert thing is made[-1]()
        del thing
    assert len(made) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets go of single pages")
def test_pages_of_a_mapped_file_go_and_come_back(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(np.arange(4_000_000, dtype=np.uint64).tobytes())
    mapped = np.memmap(tmp_path / "weights", np.uint64, "c")[3:-3]
    before = _file_backed()
    total = mapped.sum()
    assert _file_backed() - before > mapped.nbytes * 0.9
    drop_pages(mapped.ctypes.data, mapped.nbytes)
    assert _file_backed() - before < mapped.nbytes * 0.1
    assert mapped.sum() == total
    drop_pages(mapped.ctypes.data, 100)  # less than a page


def _file_backed() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))
