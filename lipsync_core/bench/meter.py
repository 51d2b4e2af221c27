"""What a process holds over time: resident memory, and memory of a CUDA device where PyTorch uses one."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from lipsync_core.memory import peak_rss

INTERVAL_S: Final = 0.02
MOST_POINTS: Final = 200  # of a curve that is kept
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int | None:
    """Return this process's resident memory now; None where the system does not tell."""
    if not _STATM.is_file():
        return None
    import mmap  # noqa: PLC0415 - its page size matters on Linux alone

    return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


def device_bytes() -> int | None:
    """Return the memory in use on the current CUDA device by anyone; None unless PyTorch has begun to use one."""
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)  # another thread may be importing it just now
    if not hasattr(cuda, "mem_get_info") or not cuda.is_initialized():
        return None
    free, total = cuda.mem_get_info()
    return int(total - free)


class MemoryMeter:
    """Looks every 20 ms, in a thread. `curve`: (s since the start, bytes), at most 200 points, peaks kept.

    peak_vram: the most in use on the CUDA device less what was when PyTorch began to use it, by whatever runtime; None
    without one. What other processes take there meanwhile is counted too.
    """

    def __init__(self) -> None:
        self.curve: list[tuple[float, int]] = []
        self.peak_vram: int | None = None
        self._base_vram: int | None = None
        self._began = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory meter", daemon=True)

    @property
    def peak_rss(self) -> int | None:
        """The process's highest resident memory so far, by the system's own count."""
        return peak_rss()

    def __enter__(self) -> MemoryMeter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self.look()

    def look(self) -> None:
        """Take one reading."""
        resident = resident_bytes()
        if resident is not None:
            self.curve.append((time.perf_counter() - self._began, resident))
            if len(self.curve) > 2 * MOST_POINTS:
                self.curve = thinned(self.curve)
        vram = device_bytes()
        if vram is not None:
            if self._base_vram is None:
                self._base_vram = vram
            self.peak_vram = max(self.peak_vram or 0, vram - self._base_vram)


def thinned(curve: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return half as many points: the higher one of each two neighbours."""
    pairs = [curve[at : at + 2] for at in range(0, len(curve), 2)]
    return [max(pair, key=lambda point: point[1]) for pair in pairs]


def forget_peak() -> None:
    """Let the system's count of the peak begin anew at what is resident now; does nothing where it cannot."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets the peak alone
