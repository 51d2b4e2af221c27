"""The compositor `feather-opencv`: blends the generated mouth in, softly and only inside the mask."""

from __future__ import annotations

from typing import Annotated, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_compositor.feather import Box, bounding_box, feather_px, feathered
from lipsync_core.types import AlignedFaces, FrameBatch, GeneratedFaces, MouthMask

_WHOLE_PIXEL: Final = 1e-6  # px; an affine this near to a shift by whole pixels is one
_SHRINK_LIMIT: Final = 1.5  # above this many crop px a frame px, sampling four of them would alias


class FeatherOptions(BaseModel):
    """Options of `feather-opencv`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    feather_eye_distances: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05,
        description="width of the soft edge, inwards from the mask's, in distances between the outer eye corners",
    )


class FeatherOpencv:
    """Alpha-blends generated crops into their frames; pixels where the mask is 0 stay byte for byte."""

    def __init__(self, options: FeatherOptions) -> None:
        self._options = options

    def composite(
        self, frames: FrameBatch, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces
    ) -> FrameBatch:
        """Return new frames; those without a face are returned as they are. All arguments cover the same n frames."""
        out = frames.pixels.copy()
        track = faces.track
        rows = zip(out, track.found, track.frame_to_crop, track.landmarks, mask.generate, generated.pixels, strict=True)
        for frame, found, matrix, landmarks, generate, pixels in rows:
            if not found:
                continue
            box = bounding_box(generate)
            if box is None:
                continue
            width = feather_px(matrix, landmarks, len(generate), self._options.feather_eye_distances)
            alpha = feathered(generate[box], width)
            shift = _whole_shift(matrix)
            if shift is not None:
                _blend_shifted(frame, pixels, alpha, box, shift)
            else:
                _blend_warped(frame, pixels, alpha, box, matrix)
        return FrameBatch(frames.start, out)


def _whole_shift(matrix: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return (x, y) of the crop's corner in the frame where the affine only shifts by whole pixels; else None."""
    corner = np.rint(-matrix[:, 2])
    near = np.abs(matrix - np.column_stack([np.eye(2), -corner])) < _WHOLE_PIXEL
    return (int(corner[0]), int(corner[1])) if near.all() else None


def _blend(frame: NDArray[np.uint8], pixels: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
    """Blend `pixels` (0…1) into `frame` in place, rounded to the nearest level."""
    if not alpha.size:
        return
    base = frame.astype(np.float32)
    mixed = base + alpha[..., None] * (pixels * np.float32(255) - base)
    np.copyto(frame, cv2.convertScaleAbs(np.maximum(mixed, 0)))  # rounds, and clips at 255


def _blend_shifted(
    frame: NDArray[np.uint8],
    pixels: NDArray[np.float32],
    alpha: NDArray[np.float32],
    box: Box,
    shift: tuple[int, int],
) -> None:
    """Blend without resampling; what lies outside the frame is left out."""
    height, width = frame.shape[:2]
    top, left = box[0].start + shift[1], box[1].start + shift[0]
    rows = slice(max(top, 0), min(top + alpha.shape[0], height))
    columns = slice(max(left, 0), min(left + alpha.shape[1], width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    _blend(frame[rows, columns], pixels[box][inner], alpha[inner])


def _blend_warped(
    frame: NDArray[np.uint8],
    pixels: NDArray[np.float32],
    alpha: NDArray[np.float32],
    box: Box,
    matrix: NDArray[np.float64],
) -> None:
    """Blend through the inverse of `matrix` (frame to crop), inside the box's outline in the frame only."""
    inverse = cv2.invertAffineTransform(matrix)
    (top, bottom), (left, right) = ((s.start, s.stop) for s in box)
    corners = np.array([[x, y, 1.0] for x in (left - 1, right) for y in (top - 1, bottom)]) @ inverse.T
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, frame.shape[1::-1])
    if (low >= high).any():
        return
    size = (int(high[0] - low[0]), int(high[1] - low[1]))

    source = pixels[box]
    to_box = matrix.copy()
    to_box[:, 2] += matrix[:, :2] @ low - (left, top)
    linear, cubic = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    soft = np.asarray(cv2.warpAffine(alpha, to_box, size, flags=linear), np.float32)
    shrink = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if shrink > _SHRINK_LIMIT:
        small = (max(round(source.shape[1] / shrink), 1), max(round(source.shape[0] / shrink), 1))
        ratio = np.array([small[0] / source.shape[1], small[1] / source.shape[0]])
        source = np.asarray(cv2.resize(source, small, interpolation=cv2.INTER_AREA), np.float32)
        # pixel centres at whole numbers: x' = (x + ½)·ratio − ½
        to_box = to_box * ratio[:, None]
        to_box[:, 2] += (ratio - 1) / 2
    warped = np.asarray(cv2.warpAffine(source, to_box, size, flags=cubic, borderMode=cv2.BORDER_REPLICATE), np.float32)
    _blend(frame[low[1] : high[1], low[0] : high[0]], warped, soft)
