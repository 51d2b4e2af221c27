"""Bicubic resizing that averages where it shrinks, as PyTorch's `interpolate(mode="bicubic", antialias=True)`.

OpenCV has no such filter: its `INTER_CUBIC` aliases, and takes another curve.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

_CURVE: Final = -0.5  # Keys's cubic; ATen/native/cpu/UpSampleKernel.cpu has this one with antialias, −0.75 without
_REACH: Final = 2.0  # samples each way, of the coarser of the two grids
_BLOCK: Final = 64  # output lines made by one product: a band of the matrix, most of which is zeros


def resized(image: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Resize [h, w, 3] to [height, width, 3]; edges as in `align_corners=False`, values not clamped."""
    if image.shape[:2] == (height, width):
        return image
    for length in (height, width):
        if length != len(image):
            image = _resized_rows(image, length)
        image = cv2.transpose(image)  # type: ignore[assignment] # OpenCV's stub widens the element type
    return image


def _resized_rows(image: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    flat = image.reshape(len(image), -1)
    out = np.empty((length, flat.shape[1]), np.float32)
    for start, reach, weights in _bands(len(image), length):
        np.matmul(weights, flat[reach], out=out[start : start + len(weights)])
    return out.reshape(length, *image.shape[1:])


@lru_cache(maxsize=8)
def _bands(source: int, target: int) -> list[tuple[int, slice, NDArray[np.float32]]]:
    """Return, for each run of output lines from `start`, the input lines it is made of and their weights."""
    ratio = source / target
    stretch = max(ratio, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * ratio
    place = np.arange(source) + 0.5
    # Whole samples count whose place, rounded, is within reach.
    low = np.maximum(np.floor(centre - _REACH * stretch + 0.5), 0)
    high = np.minimum(np.floor(centre + _REACH * stretch + 0.5), source)
    weights = np.where((place > low) & (place < high), _cubic(np.abs(place - centre) / stretch), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    bands = []
    for start in range(0, target, _BLOCK):
        rows = weights[start : start + _BLOCK]
        used = np.flatnonzero(rows.any(axis=0))
        reach = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((start, reach, np.ascontiguousarray(rows[:, reach], np.float32)))
    return bands


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_CURVE + 2) * x - (_CURVE + 3)) * x * x + 1
    far = ((_CURVE * x - 5 * _CURVE) * x + 8 * _CURVE) * x - 4 * _CURVE
    return np.where(x < 1, near, np.where(x < _REACH, far, 0.0))
