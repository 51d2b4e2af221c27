"""The part of a mask that is around the mouth, for models whose jaws and cheeks are worse than the source's own."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lipsync_core import landmarks as lm

# By eye, on dubs of the four speakers `mini` was not trained on and of a portrait.
_SIDEWAYS: Final = 0.3  # beyond the mouth's corners, in distances between the outer eye corners
_AROUND: Final = 0.12  # beyond the lips wherever they are, as none of the source's may be left standing
_UP, _DOWN = 0.9, 0.85  # of the way from the middle of the lips to the nose's base, and to the chin's tip
_NEEDED: Final = np.r_[lm.CHIN, lm.NOSE_BOTTOM, lm.EYE_OUTER_LEFT, lm.EYE_OUTER_RIGHT, lm.OUTER_LIP]
_SUBPIXEL_BITS: Final = 4
_FAR: Final = 1e4  # px


def around_mouth(
    generate: NDArray[np.float32], matrix: NDArray[np.float64], landmarks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a mask [S, S] that is `generate` in an ellipse around the source's mouth and about its lips, else 0.

    The ellipse ends short of the chin's edge, so the source's jaw stays as it is: a generated one beside it would
    show twice. matrix: [2, 3], frame to crop. landmarks: [68, 2], frame px; where an aligner lacks those of lips,
    nose, eyes and chin, all of `generate` is returned.
    """
    points = landmarks[_NEEDED].astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    if not np.isfinite(points).all():
        return generate
    chin, nose, left_eye, right_eye, lips = *points[:4], points[4:]
    across = right_eye - left_eye
    unit = float(np.hypot(*across))
    right = across / max(unit, 1e-6)
    down = np.array([-right[1], right[0]])
    middle = lips.mean(axis=0)
    top, bottom = _UP * float((nose - middle) @ down), _DOWN * float((chin - middle) @ down)
    half_width = float(np.abs((lips - middle) @ right).max()) + _SIDEWAYS * unit
    half_height = max((bottom - top) / 2, 0.0)
    centre = middle + (top + bottom) / 2 * down
    away = lips - middle
    outline = lips + away * (_AROUND * unit / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))
    inside = np.zeros(generate.shape, np.uint8)
    axes = _fixed([half_width, half_height])
    degrees = math.degrees(math.atan2(right[1], right[0]))
    cv2.ellipse(inside, _fixed(centre), axes, degrees, 0, 360, 1, thickness=cv2.FILLED, shift=_SUBPIXEL_BITS)
    cv2.fillPoly(inside, [np.array([_fixed(point) for point in outline])], 1, shift=_SUBPIXEL_BITS)
    return generate * inside


def _fixed(point: ArrayLike) -> list[int]:
    """Return whole 1/16 px; far outside any crop OpenCV's integers would overflow."""
    return [round(float(v)) for v in np.clip(np.asarray(point, np.float64), -_FAR, _FAR) * (1 << _SUBPIXEL_BITS)]
