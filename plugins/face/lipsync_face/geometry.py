"""Similarity fits and the two crop geometries, for any detector that delivers the 68 canonical landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm

# Points that move with the head and hardly with speech: eye corners, nose bridge and nose base.
RIGID: Final = np.r_[36, 39, 42, 45, lm.NOSE_BRIDGE, lm.NOSE_BASE]

# LatentSync's template (x, y) in units of r = 2.8 × resolution / 256, for a crop of 75r × 100r
# (latentsync/utils/affine_transform.py of the reference): both brows and the nose.
TEMPLATE: Final = np.array([(17.0, 20.0), (58.0, 20.0), (37.5, 40.0)])
TEMPLATE_WIDTH, TEMPLATE_HEIGHT = 75, 100
TEMPLATE_UNIT: Final = 2.8 / 256
DEFAULT_RESOLUTION: Final = 256  # px, of the square crop where neither option nor denoiser says
BORDER_GREY: Final = 127  # what lies outside the frame in LatentSync's crops
# Its three points are means of groups of a 106-point set: five points of each brow, and bridge end, tip and both
# wings of the nose. Their nearest counterparts here:
NOSE_GROUP: Final = (29, 30, 31, 35)

# What stays in place where a crop is zoomed, in shares of its side: near the mouth, so that chins stay inside.
ZOOM_CENTRE: Final = np.array([0.5, 0.6])

NATIVE_SCALE: Final = 1.7  # side of the native box in face heights (brows to chin)
NATIVE_SHIFT: Final = 0.1  # its middle lies this far below the face's, in face heights: room for an opening jaw

_BLOCK: Final = 2048  # faces handled at once, so that memory does not grow with the shot
Points = NDArray[np.float32] | NDArray[np.float64]


def fit_similarity(points: NDArray[np.float64], template: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the similarities float64 [..., 2, 3] that carry points [..., k, 2] to a template [k, 2] or [..., k, 2].

    Rotation: least squares (Kabsch, 1976; in the plane it is one angle). Scale: ratio of the standard deviations of
    all coordinates, as LatentSync has it, not the least-squares one, which shrinks with noise.
    """
    points, template = np.broadcast_arrays(np.asarray(points, np.float64), np.asarray(template, np.float64))
    mean_a, mean_b = points.mean(axis=-2, keepdims=True), template.mean(axis=-2, keepdims=True)
    a, b = points - mean_a, template - mean_b
    scale = np.sqrt((b**2).sum(axis=(-2, -1)) / (a**2).sum(axis=(-2, -1)))
    dot = (a * b).sum(axis=(-2, -1))
    cross = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(axis=-1)
    angle = np.arctan2(cross, dot)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
    shift = np.swapaxes(mean_b, -2, -1) - turn @ np.swapaxes(mean_a, -2, -1)
    return np.concatenate([turn, shift], axis=-1)


def apply(affine: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points [..., k, 2] by affines [..., 2, 3]."""
    mapped: NDArray[np.float64] = points @ np.swapaxes(affine[..., :2], -2, -1) + affine[..., 2][..., None, :]
    return mapped


def invert(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverses of affines [..., 2, 3]."""
    turn = np.linalg.inv(affine[..., :2])
    return np.concatenate([turn, -turn @ affine[..., 2:]], axis=-1)


class NativeGeometry:
    """An axis-aligned square in whole pixels, of one size for a track: no resampling."""

    crop_size: int | None = None

    def fit(self, landmarks: Points) -> tuple[NDArray[np.float64], int]:
        """Return frame_to_crop [n, 2, 3] and the side (even, px) for landmarks [n, 68, 2] of one scene.

        Rows of NaN, frames without a face, get zeros.
        """
        matrices, height = np.zeros((len(landmarks), 2, 3)), 0.0
        shape = _mean_shape(landmarks)
        low, high = shape.min(axis=0), shape.max(axis=0)
        middle = (low + high) / 2 + (0, NATIVE_SHIFT * (high[1] - low[1]))
        for rows, faces in _blocks(landmarks):
            pose = fit_similarity(shape[RIGID], faces[:, RIGID])
            matrices[rows, 0, 0] = matrices[rows, 1, 1] = 1
            matrices[rows, :, 2] = -apply(pose, middle[None, None])[:, 0]
            height = max(height, float((faces.max(axis=1) - faces.min(axis=1)).max()))
        side = max(2, 2 * int(np.ceil(height * NATIVE_SCALE / 2)))
        there = matrices[:, 0, 0] == 1
        matrices[there, :, 2] = np.rint(matrices[there, :, 2] + (side - 1) / 2)
        return matrices, side

    def cut(self, frame: NDArray[np.uint8], frame_to_crop: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
        """Return the crop uint8 [side, side, 3]; pixels outside the frame repeat its edge."""
        x, y = (round(-v) for v in frame_to_crop[:, 2])
        columns, rows = _within(x, x + side, frame.shape[1]), _within(y, y + side, frame.shape[0])
        inside = frame[rows, columns]
        height, width = inside.shape[:2]
        if (height, width) == (side, side):
            return inside
        top, left = min(max(-y, 0), side - height), min(max(-x, 0), side - width)
        return np.asarray(
            cv2.copyMakeBorder(
                inside, top, side - height - top, left, side - width - left, borderType=cv2.BORDER_REPLICATE
            ),
            np.uint8,
        )


class LatentSyncGeometry:
    """LatentSync's three-point alignment: 75r × 100r by similarity, then stretched to a square.

    zoom: enlarges what is seen about `ZOOM_CENTRE`; 1 for LatentSync itself.
    """

    def __init__(self, resolution: int, zoom: float = 1.0) -> None:
        self.crop_size = resolution
        self._zoom = zoom
        unit = TEMPLATE_UNIT * resolution
        self.template = TEMPLATE * unit
        self._width, self._height = int(TEMPLATE_WIDTH * unit), int(TEMPLATE_HEIGHT * unit)
        sx, sy = resolution / self._width, resolution / self._height
        self._stretch = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]])

    def fit(self, landmarks: Points) -> tuple[NDArray[np.float64], int]:
        """Return frame_to_crop [n, 2, 3] and the side (px) for landmarks [n, 68, 2]; rows of NaN get zeros."""
        matrices = np.zeros((len(landmarks), 2, 3))
        for rows, faces in _blocks(landmarks):
            matrices[rows] = self.compose(fit_similarity(three_points(faces), self.template))
        return matrices, self.crop_size

    def compose(self, similarity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the map to the square crop from that to the 75r × 100r rectangle, both [..., 2, 3]."""
        stretch = self._stretch
        mapped = stretch[:, :2] @ similarity
        mapped[..., 2] += stretch[:, 2]
        mapped *= self._zoom
        mapped[..., 2] += (1 - self._zoom) * (ZOOM_CENTRE * self.crop_size - 0.5)
        return mapped

    def cut(self, frame: NDArray[np.uint8], frame_to_crop: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
        """Return the crop uint8 [side, side, 3]: bilinear, truncated, then Lanczos to the square."""
        shrink = invert(self._stretch)
        to_rectangle = shrink[:, :2] @ frame_to_crop
        to_rectangle[:, 2] += shrink[:, 2]
        # Only the part of the frame that is seen is converted: a 4K frame in float32 has 100 MB.
        outline = np.array([(0, 0), (self._width, 0), (0, self._height), (self._width, self._height)], np.float64)
        seen = apply(invert(to_rectangle), outline)
        (x0, y0), (x1, y1) = np.floor(seen.min(axis=0)).astype(int) - 1, np.ceil(seen.max(axis=0)).astype(int) + 2
        columns, rows = _within(x0, x1, frame.shape[1]), _within(y0, y1, frame.shape[0])
        to_rectangle[:, 2] += to_rectangle[:, :2] @ (columns.start, rows.start)
        rectangle = cv2.warpAffine(
            frame[rows, columns].astype(np.float32),
            to_rectangle,
            (self._width, self._height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(BORDER_GREY,) * 3,
        ).astype(np.uint8)
        return np.asarray(cv2.resize(rectangle, (side, side), interpolation=cv2.INTER_LANCZOS4), np.uint8)


def _within(start: int, stop: int, length: int) -> slice:
    """Return the part of start…stop that lies in 0…length, or the pixel nearest to it."""
    first = min(max(start, 0), length - 1)
    return slice(first, max(min(stop, length), first + 1))


def _blocks(landmarks: Points) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield the faces of a track some at a time: their rows, and their landmarks float64 [k, 68, 2]."""
    for first in range(0, len(landmarks), _BLOCK):
        block = landmarks[first : first + _BLOCK]
        there = np.flatnonzero(np.isfinite(block).all(axis=(1, 2)))
        if len(there):
            yield first + there, block[there].astype(np.float64)


def _mean_shape(landmarks: Points) -> NDArray[np.float64]:
    """Return the mean face [68, 2] of a track, upright, of about the size it has in the frame."""
    upright, total, count = np.zeros((lm.COUNT, 2)), np.zeros((lm.COUNT, 2)), 0
    for _, faces in _blocks(landmarks):
        if not count:
            x, y = faces[0, lm.EYE_OUTER_RIGHT] - faces[0, lm.EYE_OUTER_LEFT]
            upright = faces[0] @ np.array([[x, -y], [y, x]]) / np.hypot(x, y)
        total += apply(fit_similarity(faces[:, RIGID], upright[RIGID]), faces).sum(axis=0)
        count += len(faces)
    mean: NDArray[np.float64] = total / max(count, 1)
    return mean


def three_points(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return both brows' and the nose's middle [n, 3, 2] of landmarks [n, 68, 2]."""
    groups = (lm.BROW_LEFT, lm.BROW_RIGHT, list(NOSE_GROUP))
    return np.stack([landmarks[:, group].mean(axis=1) for group in groups], axis=1)
