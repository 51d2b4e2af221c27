"""Pictures of the source kept on disk, so that memory does not grow with its length."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import OutputError

Rect = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True, slots=True)
class Patch:
    """Where pixels are: offset in the file, and the rectangle of the crop they show."""

    offset: int
    rect: Rect


class PatchFile:
    """Pixels in one temporary file that has no name and goes with the object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - held as long as the object
        self._close = weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # two threads may read
        self._end = 0

    def append(self, pixels: NDArray[np.uint8], rect: Rect) -> Patch:
        """Write pixels [height, width, 3]."""
        with self._lock:
            try:
                self._file.seek(self._end)
                self._file.write(pixels.data)
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._file.close()  # now, or it would be flushed again where nobody catches that
                raise OutputError(
                    f"The source's mouths cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}.",
                    "Free space there, or set TMPDIR to a folder that has some.",
                ) from error
            patch = Patch(self._end, rect)
            self._end += pixels.nbytes
        return patch

    def read(self, patch: Patch) -> NDArray[np.uint8]:
        """Return the pixels [height, width, 3]."""
        width, height = patch.rect[2:]
        with self._lock:
            self._file.seek(patch.offset)
            data = self._file.read(width * height * 3)
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)

    def close(self) -> None:
        """Give the disk space back."""
        self._close()
