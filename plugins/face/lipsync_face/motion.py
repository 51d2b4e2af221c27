"""Measures how the head moved between two frames, from the picture itself.

Landmark models err by a fraction of a pixel, differently in each frame; optical flow on the skin and features of the
upper face does not. Where a camera shakes, it tells true motion from jitter, which no filter on landmarks alone can.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_face.geometry import RIGID, apply, fit_similarity

# The part of the face that speech hardly moves: from the brows to the outer eye corners and the nose base.
UPPER_FACE: Final = np.r_[lm.BROW_LEFT, lm.BROW_RIGHT, lm.NOSE_BASE, lm.EYE_OUTER_LEFT, lm.EYE_OUTER_RIGHT]
MARGIN: Final = 0.4  # room around the upper face for its motion between two frames, in its widths
WORK_SIDE: Final = 384  # px; larger faces are shrunk to it, so cost does not grow with the frame
CORNERS: Final = 80
CORNER_QUALITY: Final = 0.005  # of the best corner's strength: skin has only weak ones
CORNER_DISTANCE: Final = 4  # px
WINDOW: Final = (21, 21)  # px, of Lucas and Kanade's method
PYRAMID: Final = 3
INLIER: Final = 1.0  # px, for RANSAC
FEWEST_INLIERS: Final = 10
DISAGREEMENT: Final = 0.1  # of the eyes' distance: flow that contradicts the landmarks by more has gone astray


class MotionMeter:
    """One track's state. Call `step` with consecutive frames."""

    def __init__(self) -> None:
        self._before: tuple[NDArray[np.uint8], NDArray[np.float64]] | None = None

    def reset(self) -> None:
        """Forget the last frame: the next one begins a new run."""
        self._before = None

    def step(self, frame: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the similarity [2, 3] from the last frame to this one, frame px; the first one's is the identity.

        frame: uint8 [H, W, 3]; landmarks: [68, 2]. Where flow fails the landmarks alone decide.
        """
        before, self._before = self._before, (frame, landmarks)
        if before is None:
            return np.eye(2, 3)
        by_landmarks = fit_similarity(before[1][RIGID], landmarks[RIGID])
        flow = _flow(before[0], frame, before[1][UPPER_FACE])
        if flow is None:
            return by_landmarks
        eyes = float(np.linalg.norm(landmarks[lm.EYE_OUTER_RIGHT] - landmarks[lm.EYE_OUTER_LEFT]))
        apart = apply(flow, before[1][RIGID]) - apply(by_landmarks, before[1][RIGID])
        return flow if float(np.abs(apart).max()) <= DISAGREEMENT * eyes else by_landmarks


def _flow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], region: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the similarity that most corners inside the region's hull follow; None where too few agree."""
    low, high = region.min(axis=0), region.max(axis=0)
    room = MARGIN * float((high - low).max())
    height, width = before.shape[:2]
    x0, y0 = np.clip(np.floor(low - room), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(high + room), 0, (width, height)).astype(int)
    if min(x1 - x0, y1 - y0) < WINDOW[0]:
        return None
    scale = min(1.0, WORK_SIDE / max(x1 - x0, y1 - y0))
    first, second = (_grey(frame[y0:y1, x0:x1], scale) for frame in (before, after))
    hull = cv2.convexHull(((region - (x0, y0)) * scale).astype(np.float32)).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros_like(first), hull, 255)
    start = cv2.goodFeaturesToTrack(first, CORNERS, CORNER_QUALITY, CORNER_DISTANCE, mask=mask)
    if start is None or len(start) < FEWEST_INLIERS:
        return None
    end, ok, _ = cv2.calcOpticalFlowPyrLK(first, second, start, np.empty(0), winSize=WINDOW, maxLevel=PYRAMID)
    kept = ok.ravel() > 0
    if kept.sum() < FEWEST_INLIERS:
        return None
    affine, inliers = cv2.estimateAffinePartial2D(start[kept], end[kept], ransacReprojThreshold=INLIER)
    if affine is None or int(inliers.sum()) < FEWEST_INLIERS:
        return None
    # Pixel p of the frame is (p + 0.5 - corner) * scale - 0.5 of the working image.
    origin = np.array([x0, y0]) - 0.5
    middle = (affine[:, 2] + 0.5 - affine[:, :2] @ (0.5, 0.5)) / scale
    return np.column_stack([affine[:, :2], middle + origin - affine[:, :2] @ origin])


def _grey(crop: NDArray[np.uint8], scale: float) -> NDArray[Any]:
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return grey if scale == 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
