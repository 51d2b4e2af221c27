"""Takes the jitter out of a landmark track: no lag, no closing of the mouth, no calming of a camera that shakes."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_face.geometry import apply, invert

# Symmetric, so without delay. Savitzky and Golay, 1964: a parabola through 7 samples; and through 5 a parabola of
# fourth degree, which at 25 frames a second keeps 98 % of a motion of 3 Hz and stops one of 12.5 Hz.
STEADY_FILTER: Final = np.array([-2, 3, 6, 7, 6, 3, -2]) / 21
LIVELY_FILTER: Final = np.array([-1, 4, 10, 4, -1]) / 16
STEADY: Final = np.r_[0:5, 12:17, lm.BROW_LEFT, lm.BROW_RIGHT, lm.NOSE_BRIDGE, lm.NOSE_BASE]  # and the jaw's ends
LIVELY: Final = np.r_[5:12, lm.EYE_LEFT, lm.EYE_RIGHT]  # chin, eyelids
_BLOCK: Final = 2048  # frames smoothed at once, so that memory does not grow with the shot

T = TypeVar("T", np.float32, np.float64)


def smooth(landmarks: NDArray[T], motion: NDArray[np.float64], out: NDArray[T] | None = None) -> NDArray[T]:
    """Return the landmarks [n, 68, 2] of consecutive frames, smoothed.

    out: takes the result, where given; may be `landmarks` itself, so that a long shot's are not held twice.
    motion: [n, 2, 3], the head's motion from the frame before to each (the first is ignored), as `MotionMeter` has it.
    With that motion undone, what moves is the face's own expression and the model's error. The lips' shape is left as
    measured, for its fast movements are speech; only their common place is filtered.
    """
    out = np.empty_like(landmarks) if out is None else out
    if len(landmarks) < len(STEADY_FILTER):
        out[:] = landmarks
        return out
    reach = len(STEADY_FILTER) // 2
    before = landmarks[:0].astype(np.float64)
    for first in range(0, len(landmarks), _BLOCK):
        stop = min(first + _BLOCK, len(landmarks))
        # A frame depends on `reach` others each way. Filters that sum to 1 do not care from which frame the motion is
        # counted, so a block gives what the whole would.
        wide = np.concatenate([before, landmarks[first : stop + reach]]).astype(np.float64)
        smoothed = _smooth(wide, motion[first - len(before) : stop + reach])[len(before) :][: stop - first]
        before = wide[: len(before) + stop - first][-reach:]  # as measured, where `out` is about to take their place
        out[first:stop] = smoothed
    return out


def _smooth(landmarks: NDArray[np.float64], motion: NDArray[np.float64]) -> NDArray[np.float64]:
    path = _accumulate(motion)
    still = apply(invert(path), landmarks)
    still[:, STEADY] = _filter(still[:, STEADY], STEADY_FILTER)
    still[:, LIVELY] = _filter(still[:, LIVELY], LIVELY_FILTER)
    middle = still[:, lm.LIPS].mean(axis=1, keepdims=True)
    still[:, lm.LIPS] += _filter(middle, LIVELY_FILTER) - middle
    return apply(path, still)


def smooth_steady(points: NDArray[np.float64], motion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points [n, k, 2] that speech hardly moves, smoothed as `smooth` does brows and nose."""
    if len(points) < len(STEADY_FILTER):
        return points
    path = _accumulate(motion)
    return apply(path, _filter(apply(invert(path), points), STEADY_FILTER))


def _accumulate(motion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the maps [n, 2, 3] from the first frame to each."""
    path = np.empty_like(motion)
    path[0] = np.eye(2, 3)
    for i in range(1, len(motion)):
        turn = motion[i, :, :2]
        path[i, :, :2] = turn @ path[i - 1, :, :2]
        path[i, :, 2] = turn @ path[i - 1, :, 2] + motion[i, :, 2]
    return path


def _filter(values: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolve along the first axis; the ends are continued by point reflection, which keeps their slope."""
    half = len(taps) // 2
    head = 2 * values[:1] - values[half:0:-1]
    tail = 2 * values[-1:] - values[-2 : -half - 2 : -1]
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([head, values, tail]), len(taps), axis=0)
    smoothed: NDArray[np.float64] = windows @ taps
    return smoothed
