"""Where the moved landmarks of each output frame shall be, in a temporary file.

They are decided for the whole job before its first frame is drawn: 296 bytes a frame, 4 MB in ten minutes, by which
memory shall not grow.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_denoiser.head import Floats
from lipsync_denoiser.render import MOVED

_SHAPE: Final = (len(MOVED), 2)
_BYTES: Final = len(MOVED) * 2 * 4


class Targets:
    """Points float32 [37, 2], frame px, as `render.MOVED`, of each of `count` frames; 0 until they are written."""

    def __init__(self, count: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - held as long as the plan
        self._close = weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # two threads may render
        self._file.truncate(count * _BYTES)

    def write(self, frames: NDArray[np.int64], points: Floats) -> None:
        """Write points [n, 37, 2] of n frames, ascending."""
        breaks = np.flatnonzero(np.diff(frames) != 1) + 1
        with self._lock:
            for run, part in zip(np.split(frames, breaks), np.split(points, breaks), strict=True):
                if len(run):
                    self._file.seek(int(run[0]) * _BYTES)
                    self._file.write(np.ascontiguousarray(part, np.float32).data)

    def read(self, first: int, count: int = 1) -> NDArray[np.float32]:
        """Return the points [count, 37, 2] of consecutive frames."""
        with self._lock:
            self._file.seek(first * _BYTES)
            data = self._file.read(count * _BYTES)
        return np.frombuffer(data, np.float32).reshape(-1, *_SHAPE)

    def close(self) -> None:
        """Give the disk space back."""
        self._close()
