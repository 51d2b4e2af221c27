"""The bank: what is kept of the source's mouths.

A few numbers a mouth stay in memory. The pixels a mouth may lend go to one anonymous temporary file as `prepare` sees
them, and are read back by position: seeking in the video instead would decode up to a whole group of pictures, ten
seconds of frames in a usual H.264 file, for each mouth.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_denoiser.head import Floats
from lipsync_denoiser.patch_file import Rect

SCENE_FRAMES: Final = 1500  # a minute at 25 frames a second: more gives the search hardly better mouths
FILE_BYTES: Final = 512 << 20  # of the temporary file, all scenes together
_WINDOW: Final = 50  # frames kept together, so that the choice can follow real movements

_SIDE_MARGIN: Final = 0.30  # of a patch beyond the mouth corners, in outer eye corners' distances
_CHIN_MARGIN: Final = 0.08  # below the chin
_LOOK: Final = (16, 12)  # width, height of the thumbnail that says how a mouth looks
_NEIGHBOURS: Final = 8  # mouths of like shape that say how such a mouth looks


def bank_frames(frames: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most `most` of a scene's frames: all, or windows of consecutive ones spread evenly."""
    if len(frames) <= most:
        return frames
    window = min(_WINDOW, most)
    starts = np.linspace(0, len(frames) - window, most // window).round().astype(np.int64)
    rows = np.unique((starts[:, None] + np.arange(window)).ravel())
    return frames[rows]


def share(sizes: list[int], weights: list[int], budget: int) -> list[int]:
    """Return how many of each scene's frames fit: `sizes` frames of `weights` bytes in `budget` bytes.

    Small scenes keep all; what is over is cut to one length, the longest that fits.
    """
    low, high = 0, max(sizes, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(size, middle) * weight for size, weight in zip(sizes, weights, strict=True)) <= budget:
            low = middle
        else:
            high = middle - 1
    return [min(size, low) for size in sizes]


def patch_rect(points: NDArray[np.float32], unit: float) -> Rect:
    """Return the rectangle a mouth's patch covers: nose to chin, and beyond the mouth corners.

    points: [68, 2] crop px. unit: px between the outer eye corners.
    """
    lips = points[lm.LIPS]
    left, right = lips[:, 0].min() - _SIDE_MARGIN * unit, lips[:, 0].max() + _SIDE_MARGIN * unit
    top = min(points[lm.NOSE_BASE, 1].min(), lips[:, 1].min())
    bottom = max(points[lm.CHIN, 1], lips[:, 1].max()) + _CHIN_MARGIN * unit
    x, y = int(np.floor(left)), int(np.floor(top))
    return x, y, max(int(np.ceil(right)) - x, 2), max(int(np.ceil(bottom)) - y, 2)


def cut(crop: NDArray[np.uint8], rect: Rect) -> NDArray[np.uint8]:
    """Return the rectangle of a crop [S, S, 3]; beyond its edge the edge's pixels repeat."""
    x, y, width, height = rect
    side_y, side_x = crop.shape[:2]
    rows = np.clip(np.arange(y, y + height), 0, side_y - 1)
    columns = np.clip(np.arange(x, x + width), 0, side_x - 1)
    if rows[0] == y and rows[-1] == y + height - 1 and columns[0] == x and columns[-1] == x + width - 1:
        return np.ascontiguousarray(crop[y : y + height, x : x + width])
    return np.ascontiguousarray(crop[rows[:, None], columns])


def look(pixels: NDArray[np.uint8], rect: Rect, points: NDArray[np.float32], unit: float) -> NDArray[np.float32]:
    """Return the thumbnail [192] of a mouth, grey levels about their mean.

    pixels: the patch [height, width, 3]; points: [68, 2] crop px. The window is fixed in units about the upper lip, so
    that a mouth of the same shape gives the same picture.
    """
    middle = (points[lm.MOUTH_LEFT] + points[lm.MOUTH_RIGHT]) / 2 - rect[:2]
    half_width, up, down = 0.38 * unit, 0.18 * unit, 0.36 * unit
    left, right = (int(np.clip(v, 0, pixels.shape[1])) for v in (middle[0] - half_width, middle[0] + half_width))
    top, bottom = (int(np.clip(v, 0, pixels.shape[0])) for v in (middle[1] - up, middle[1] + down))
    if right - left < 2 or bottom - top < 2:
        return np.zeros(_LOOK[0] * _LOOK[1], np.float32)
    grey = cv2.cvtColor(pixels[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, _LOOK, interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    centred: NDArray[np.float32] = small - small.mean()
    return centred


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Return the mean absolute Laplacian of a patch, grey levels."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_16S)).mean())


def oddity(shapes: Floats, looks: NDArray[np.float32]) -> Floats:
    """Return how far each mouth's look [n] is from that of mouths of like shape, in the bank's usual distance.

    shapes: [n, k] z-scores. A laugh, a tongue or a hand looks unlike the mouths that measure alike; a plain mouth
    scores about 1.
    """
    n = len(shapes)
    if n < 2 * _NEIGHBOURS:
        return np.ones(n)
    distance = np.empty(n)
    squares = (shapes**2).sum(axis=1)
    for row in range(n):
        apart = squares - 2 * shapes @ shapes[row]
        apart[row] = np.inf
        near = np.argpartition(apart, _NEIGHBOURS)[:_NEIGHBOURS]
        distance[row] = np.sqrt(((np.median(looks[near], axis=0) - looks[row]) ** 2).mean())
    usual: Floats = distance / max(float(np.median(distance)), 1e-6)
    return usual
