"""MediaPipe's short-range face detector (BlazeFace), run by OpenCV's DNN module.

Model and constants: MediaPipe `face_detection_short_range` (Apache-2.0), Bazarevsky et al., "BlazeFace", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_face.dnn import TfliteNet, sigmoid

INPUT_SIDE: Final = 128
# SSD anchors of the short-range graph: strides 8, 16, 16, 16, two anchors of unit size each, at cell centres.
ANCHOR_GRIDS: Final = ((16, 2), (8, 6))  # (cells along a side, anchors in a cell)
OUTPUTS: Final = ("classificators", "regressors")
OVERLAP: Final = 0.3  # IoU above which two boxes are one face (the graph's min_suppression_threshold)
EYE_LEFT, EYE_RIGHT = 0, 1  # key points, the image's left and right


def _anchors() -> NDArray[np.float32]:
    """Return anchor centres float32 [896, 2], in 0…1 of the input square."""
    grids = []
    for cells, repeats in ANCHOR_GRIDS:
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        x, y = np.meshgrid(centres, centres)
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeats, axis=0))
    return np.concatenate(grids)


@dataclass(frozen=True, slots=True)
class Detection:
    """One face: `box` (x0, y0, x1, y1) and `points` [6, 2] in frame px, `score` 0…1.

    Points: both eyes, nose tip, mouth, both ears; left and right are the image's.
    """

    box: NDArray[np.float64]
    points: NDArray[np.float64]
    score: float

    @property
    def centre(self) -> NDArray[np.float64]:
        """Middle of the box (x, y), frame px."""
        middle: NDArray[np.float64] = (self.box[:2] + self.box[2:]) / 2
        return middle

    @property
    def size(self) -> float:
        """Longer side of the box, px."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return intersection over union of two boxes (x0, y0, x1, y1)."""
    overlap = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if overlap.min() <= 0:
        return 0.0
    shared = float(overlap.prod())
    return shared / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared)


def merge(found: list[Detection]) -> list[Detection]:
    """Make one detection of those that overlap: mean weighted by score, as the graph's WEIGHTED suppression."""
    left = sorted(found, key=lambda d: -d.score)
    merged = []
    while left:
        best = left[0]
        same = [d for d in left if d is best or iou(d.box, best.box) > OVERLAP]
        left = [d for d in left if not any(d is s for s in same)]
        weights = np.array([d.score for d in same])
        merged.append(
            Detection(
                np.average([d.box for d in same], axis=0, weights=weights),
                np.average([d.points for d in same], axis=0, weights=weights),
                best.score,
            )
        )
    return merged


class BlazeFace:
    """Finds faces that fill more than about a sixth of a square."""

    def __init__(self, model: Path, min_score: float) -> None:
        self._net = TfliteNet(model, OUTPUTS)
        self._min_score = min_score
        self._anchors = _anchors()

    def detect(self, frame: NDArray[np.uint8], x0: float, y0: float, side: float) -> list[Detection]:
        """Return the faces inside a square of the frame uint8 [H, W, 3]; outside the frame counts as black.

        Where the square is larger than the network's input it is shrunk by area, so cost does not grow with the frame.
        """
        left, top, width = round(x0), round(y0), max(round(side), 1)
        image = _square(frame, left, top, width)
        blob = cv2.dnn.blobFromImage(image, 1 / 127.5, mean=(127.5, 127.5, 127.5))
        logits, boxes = self._net.run(blob)
        scores = sigmoid(logits.reshape(-1))
        rows = np.flatnonzero(scores >= self._min_score)
        values = boxes.reshape(len(self._anchors), 16)[rows].astype(np.float64).reshape(-1, 8, 2) / INPUT_SIDE
        places = values + self._anchors[rows][:, None, :]
        corners = np.stack([places[:, 0] - values[:, 1] / 2, places[:, 0] + values[:, 1] / 2], axis=1)
        origin = np.array([left, top]) - 0.5  # from pixel edges to pixel centres
        found = [
            Detection((box * width + origin).ravel(), points * width + origin, float(score))
            for box, points, score in zip(corners, places[:, 2:], scores[rows], strict=True)
        ]
        return merge(found)


def _square(frame: NDArray[np.uint8], left: int, top: int, side: int) -> NDArray[np.uint8]:
    """Cut a square and shrink or enlarge it to the network's input; what is outside the frame is black."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    image = np.zeros((INPUT_SIDE, INPUT_SIDE, 3), np.uint8)
    scale = INPUT_SIDE / side
    to_x0, to_y0, to_x1, to_y1 = (round(v * scale) for v in (x0 - left, y0 - top, x1 - left, y1 - top))
    if x1 > x0 and y1 > y0 and to_x1 > to_x0 and to_y1 > to_y0:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        shown = frame[y0:y1, x0:x1]
        image[to_y0:to_y1, to_x0:to_x1] = cv2.resize(shown, (to_x1 - to_x0, to_y1 - to_y0), interpolation=method)
    return image
