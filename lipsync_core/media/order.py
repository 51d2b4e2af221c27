"""Source frames in any order, in bounded memory: forward by decoding, backward by segments, far by seeking."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from lipsync_core.errors import InputError
from lipsync_core.media.index import FrameIndex
from lipsync_core.media.probe import decode_video

if TYPE_CHECKING:
    from lipsync_core.media.reader import VideoReader

log = logging.getLogger(__name__)

HOLD_BYTES: Final = 96 << 20
"""Most that is held of a backward run, as decoded (YUV): 32 frames of 1080×1920."""

_SEEK_GAIN: Final = 16
"""Frames a seek must save: it throws away what the decoder has under way."""

_SEEK_BACK_S: Final = (0.0, 1.0, 5.0, 20.0)
"""How far before a key frame to aim, s, one after the other: program and transport streams land late."""


def frames_in_order(reader: VideoReader, index: FrameIndex, order: NDArray[np.int64]) -> Iterator[VideoFrame]:
    """Yield frame `order[i]` for each i, not converted; the same object where a frame repeats."""
    wanted = [int(i) for i in order]
    with Cursor(reader, index) as cursor:
        at = 0
        while at < len(wanted):
            if wanted[at] >= cursor.position:
                yield cursor.frame(wanted[at])
                at += 1
                continue
            stop = _backward_run(wanted, at, cursor.capacity)
            run = wanted[at:stop]
            held = {i: cursor.frame(i) for i in sorted(set(run))}
            yield from (held[i] for i in run)
            held.clear()  # before the next run is decoded, or two would be held
            at = stop


def _backward_run(wanted: list[int], at: int, capacity: int) -> int:
    """Return the end of the longest run from `at` that needs no frame after its first and spans `capacity` frames."""
    top = wanted[at]
    stop = at + 1
    while stop < len(wanted) and top - capacity < wanted[stop] <= top:
        stop += 1
    return stop


class Cursor:
    """Decodes one file to whichever frame is asked for; `position` is the last one returned, −1 at the start."""

    def __init__(self, reader: VideoReader, index: FrameIndex) -> None:
        self._reader = reader
        self._index = index
        self._seekable = index.seekable and not reader.is_still
        self._keys = np.flatnonzero(index.key)
        self._stack = contextlib.ExitStack()
        self._frames: Iterator[VideoFrame] = iter(())
        self._landed: VideoFrame | None = None
        self._current: VideoFrame | None = None
        self._from_start = True
        self.position = -1
        self._restart()

    def __enter__(self) -> Cursor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def capacity(self) -> int:
        """How many decoded frames may be held at once."""
        if self._current is None:
            return 1
        size = sum(plane.buffer_size for plane in self._current.planes)
        return max(1, HOLD_BYTES // max(1, size))

    def frame(self, target: int) -> VideoFrame:
        """Return frame `target`, moving there; raises `InputError` where the file ends before it."""
        if target == self.position and self._current is not None:
            return self._current
        self._approach(target)
        while self.position < target:
            self._advance()
            if self._seekable and self._current is not None and self._current.pts != self._index.pts[self.position]:
                if self._from_start:
                    raise self._changed()
                self._distrust()
        assert self._current is not None
        return self._current

    def _approach(self, target: int) -> None:
        """Go to the best point at or before `target` to decode from."""
        before = int(np.searchsorted(self._keys, target, "right")) - 1
        key = int(self._keys[before]) if before >= 0 else 0
        behind = target < self.position
        if self._seekable and key > 0 and (behind or key - self.position > _SEEK_GAIN):
            self._seek(key)
        elif behind:
            self._restart()

    def _advance(self) -> None:
        frame = self._landed or next(self._frames, None)
        self._landed = None
        if frame is None:
            if self._from_start:
                raise self._changed()
            self._distrust()
            return
        self.position += 1
        self._current = frame

    def _restart(self) -> None:
        """Open the file anew, before its first frame."""
        self._stack.close()
        self._container, self._stream = self._stack.enter_context(self._reader.open())
        self._frames = decode_video(self._container, self._stream, self._reader.damage)
        self._landed = self._current = None
        self._from_start = True
        self.position = -1

    def _distrust(self) -> None:
        """Seeking led astray: never seek in this file again, and decode it from the start."""
        log.info("%s does not seek exactly; it is decoded from its beginning instead", self._reader.path)
        self._seekable = False
        self._restart()

    def _seek(self, key: int) -> None:
        """Stand before frame `key` or an earlier key frame, or before the first frame of all."""
        pts = self._index.pts
        target = int(pts[key])
        for back_s in _SEEK_BACK_S:
            aim = target - round(back_s / self._index.time_base)
            if back_s and aim <= pts[0]:
                break
            try:
                self._container.seek(aim, stream=self._stream, backward=True)
            except FFmpegError:
                break
            self._frames = decode_video(self._container, self._stream, self._reader.damage)
            for frame in self._frames:
                if frame.pts is None or frame.pts > target:
                    break
                i = int(np.searchsorted(pts, frame.pts))
                if frame.key_frame and self._index.key[i] and frame.pts == pts[i]:
                    self._landed, self._current = frame, None
                    self.position = i - 1
                    self._from_start = False
                    return
        self._restart()

    def _changed(self) -> InputError:
        return InputError(
            f"{str(self._reader.path)!r} no longer holds the frames it had when it was analysed.",
            "Leave the file alone while it is dubbed, and start again.",
        )
