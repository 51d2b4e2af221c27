"""When each frame of a source is shown and where decoding can start: what the first pass keeps of a video's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Presentation times of all n frames of a source, strictly increasing.

    pts: int64 [n], in units of `time_base` s, as the file has them (repaired where missing or not increasing).
    key: bool [n], frames a decoder can start at.
    end_pts: when the last frame's display ends.
    seekable: False where a timestamp had to be repaired; such a file is only decoded from its beginning.
    """

    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    time_base: Fraction
    end_pts: int
    seekable: bool = True

    def __post_init__(self) -> None:
        if len(self.pts) != len(self.key) or not len(self.pts):
            raise ValueError(f"FrameIndex needs a frame and a key flag for each, got {len(self.pts)}, {len(self.key)}")

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds from the first frame, float64 [n]."""
        ticks: NDArray[np.float64] = (self.pts - self.pts[0]).astype(np.float64)
        return ticks * float(self.time_base)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's start to the last frame's end."""
        return (self.end_pts - int(self.pts[0])) * self.time_base

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the whole as arrays, for a cache file."""
        scalars = [self.time_base.numerator, self.time_base.denominator, self.end_pts, int(self.seekable)]
        return {"pts": self.pts, "key": self.key, "index_scalars": np.array(scalars, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FrameIndex:
        """Read what `to_arrays` returned; raises `KeyError` or `ValueError` if it is something else."""
        numerator, denominator, end_pts, seekable = (int(v) for v in arrays["index_scalars"])
        pts = np.asarray(arrays["pts"], np.int64)
        key = np.asarray(arrays["key"], np.bool_)
        return cls(pts, key, Fraction(numerator, denominator), end_pts, bool(seekable))


class Clock:
    """Gives each frame of one plain decode its pts, repairing what is missing or does not increase."""

    def __init__(self, step: int, *, by_dts: bool = False) -> None:
        """Start; `step` is the usual distance of two frames in time-base units.

        by_dts: the file's pts are known to be wrong (see `reader`); decoding times, which increase evenly, stand in.
        """
        self._step = max(1, step)
        self._offset = 0
        self._last: int | None = None
        self._duration = 0
        self._by_dts = by_dts
        self.repaired = by_dts

    def stamp(self, frame: VideoFrame) -> int:
        """Return the next frame's pts, above the one before."""
        self._duration = frame.duration or 0
        stamp = frame.dts if self._by_dts else frame.pts
        if stamp is None:
            self.repaired = True
            self._last = 0 if self._last is None else self._last + self._step
            return self._last
        pts = stamp + self._offset
        if self._last is not None and pts <= self._last:
            self.repaired = True
            if self._last - pts <= 2 * self._step:  # a repeated or jittering stamp: the next ones are right again
                pts = self._last + 1
            else:  # the clock started anew, as in files put end to end
                self._offset += self._last + self._step - pts
                pts = self._last + self._step
        self._last = pts
        return pts

    def end(self, pts: NDArray[np.int64]) -> int:
        """Return when the last frame ends: its own duration if the file says one, else the usual distance."""
        if self._duration > 0:
            return int(pts[-1]) + self._duration
        usual = int(np.median(np.diff(pts))) if len(pts) > 1 else self._step
        return int(pts[-1]) + max(1, usual)
