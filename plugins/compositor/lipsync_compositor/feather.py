"""The soft edge of a mask: where it is, how wide it is, and alpha from it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm

_EYES_OF_SIDE: Final = 0.4  # outer eye corners' distance over the crop's side, where an aligner supplies no eyes

Box = tuple[slice, slice]  # rows, columns


def bounding_box(generate: NDArray[np.float32]) -> Box | None:
    """Return the rows and columns of a mask [h, w] that are not 0; None where all are."""
    x, y, width, height = cv2.boundingRect((generate > 0).view(np.uint8))
    return (slice(y, y + height), slice(x, x + width)) if width else None


def feather_px(matrix: NDArray[np.float64], landmarks: NDArray[np.float32], side: int, eye_distances: float) -> float:
    """Return `eye_distances` distances between the outer eye corners, in px of the crop of `side` px.

    matrix: [2, 3], frame to crop. landmarks: [68, 2], frame px.
    """
    corners = landmarks[[lm.EYE_OUTER_LEFT, lm.EYE_OUTER_RIGHT]].astype(np.float64) @ matrix[:, :2].T
    eyes = float(np.linalg.norm(corners[1] - corners[0]))
    if not np.isfinite(eyes):
        eyes = _EYES_OF_SIDE * side
    return eye_distances * eyes


def feathered(generate: NDArray[np.float32], width_px: float) -> NDArray[np.float32]:
    """Return alpha [h, w] for a mask [h, w]: 0 where it is 0, rising inwards as a half cosine over `width_px`.

    The array's own edge counts as the mask's, so its bounding box alone gives the same alpha.
    """
    if width_px < 1:
        return generate
    inside = cv2.copyMakeBorder((generate > 0).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_3)[1:-1, 1:-1]
    ramp = np.minimum(depth / np.float32(width_px), np.float32(1))
    # 3r² − 2r³: the half cosine to within .01, without a cosine a pixel
    alpha: NDArray[np.float32] = ramp * ramp * (3 - 2 * ramp) * generate
    return alpha
