"""Peak memory is this process's own, and giving memory back is harmless everywhere."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from lipsync_core.memory import give_back, peak_rss, use_one_heap


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
    use_one_heap()
    held = [np.full(1000, i, np.int32) for i in range(2000)]
    give_back()
    assert all((array == i).all() for i, array in enumerate(held))
