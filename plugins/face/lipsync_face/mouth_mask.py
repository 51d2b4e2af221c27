"""The masker `mouth-mask`: the lower face of each frame, from its landmarks."""

from __future__ import annotations

from typing import Annotated, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core import landmarks as lm
from lipsync_core.errors import BackendError
from lipsync_core.types import AlignedFaces, MouthMask
from lipsync_face.geometry import apply

JAW_USED: Final = slice(3, 14)  # from the height of the nose base on one side, round the chin, to the other
NOSE_USED: Final = (35, 33, 31)  # right to left, to close the curve
NEEDED: Final = np.r_[3:14, 31:36, lm.EYE_OUTER_LEFT, lm.EYE_OUTER_RIGHT, lm.LIPS]
CURVE_STEPS: Final = 8  # straight pieces between two points of the outline
SUBPIXEL_BITS: Final = 4

EyeWidths = Annotated[float, Field(ge=0, le=1)]


class MouthMaskOptions(BaseModel):
    """Options of `mouth-mask`. The unit is the distance between the outer eye corners."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chin_margin_eye_widths: EyeWidths = Field(
        default=0.2, description="room below the chin, for a jaw that opens further than the source's"
    )
    jaw_margin_eye_widths: EyeWidths = Field(default=0.04, description="room outside the contour of the jaw")
    nose_gap_eye_widths: EyeWidths = Field(default=0.06, description="space kept between the nose and the mask")
    lip_margin_eye_widths: EyeWidths = Field(default=0.05, description="room around the lips, whatever the jaw does")


class MouthMasker:
    """Draws the region between nose, cheeks and chin."""

    def __init__(self, options: MouthMaskOptions) -> None:
        self._options = options

    def mask(self, faces: AlignedFaces) -> MouthMask:
        """Return the mask of each crop: 1 inside, 0 outside, values between on the edge's own pixels only.

        Raises: `BackendError` where the aligner does not supply lips, jaw, nose base and outer eye corners.
        """
        track = faces.track
        points = apply(track.frame_to_crop, track.landmarks.astype(np.float64))
        if np.isnan(points[:, NEEDED]).any():
            raise BackendError(
                "The masker mouth-mask needs landmarks of jaw, nose, eyes and lips, and the aligner lacks some.",
                "Choose the aligner facemesh-opencv or another masker.",
            )
        generate = np.zeros((len(track), track.crop_size, track.crop_size), np.float32)
        for out, face in zip(generate, points, strict=True):
            out[:] = self._draw(face, track.crop_size)
        return MouthMask(generate)

    def _draw(self, face: NDArray[np.float64], side: int) -> NDArray[np.float32]:
        across = face[lm.EYE_OUTER_RIGHT] - face[lm.EYE_OUTER_LEFT]
        unit = float(np.hypot(*across))
        lips = face[lm.OUTER_LIP]
        lip_middle = lips.mean(axis=0)
        away = lips - lip_middle
        room = self._options.lip_margin_eye_widths * unit
        around = lips + away * (room / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))
        canvas = np.zeros((side, side), np.uint8)
        # Two calls: within one call overlapping curves would cancel each other out.
        for curve in (self._lower_face(face, across / unit, unit), around):
            fixed = np.rint(_closed_curve(curve) * (1 << SUBPIXEL_BITS)).astype(np.int32)
            cv2.fillPoly(canvas, [fixed], 255, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
        return canvas.astype(np.float32) / np.float32(255)

    def _lower_face(self, face: NDArray[np.float64], right: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
        """Return the outline's points: jaw from left to right, then back under the nose."""
        down = np.array([-right[1], right[0]])
        jaw = face[JAW_USED]
        share = np.sin(np.linspace(0, np.pi, len(jaw)))[:, None]  # of the room: none beside the ears, all at the chin
        outward = np.linspace(-1, 1, len(jaw))[:, None] * right
        jaw = jaw + unit * share * (
            self._options.jaw_margin_eye_widths * outward + self._options.chin_margin_eye_widths * share * down
        )
        # Not below the middle between nose and lip: a raised lip must stay inside.
        free = float((face[lm.UPPER_LIP_TOP] - face[lm.NOSE_BOTTOM]) @ down)
        gap = max(0.0, min(self._options.nose_gap_eye_widths * unit, free / 2))
        return np.concatenate([jaw, face[list(NOSE_USED)] + gap * down])


def _closed_curve(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a smooth closed curve through points [k, 2] (Catmull and Rom, 1974), [k * CURVE_STEPS, 2]."""
    p0, p1, p2, p3 = (np.roll(points, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    t = (np.arange(CURVE_STEPS) / CURVE_STEPS)[:, None]
    curve = p1 + t / 2 * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.reshape(-1, 2)
