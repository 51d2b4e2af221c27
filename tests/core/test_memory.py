"""Peak memory is this process's own, and giving memory back is harmless everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lipsync_core.memory import drop_pages, give_back, keep_heap_small, peak_rss


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
