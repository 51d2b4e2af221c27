"""People who are not in the footage: two faces made into one, other lips, a lasting smile, another neck and background.

Seven people are few. How somebody else looks has to be read from the reference, which is only learnt where it cannot be
remembered. Everything here changes target, reference and surroundings of an item alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from lipsync_core import landmarks as lm
from mini_training.other_mouths import SMILE_OUT, SMILE_UP, pull

# Of the second person, in the joint face. Outside 0…1 the first one's own proportions are exaggerated.
PROPORTIONS = (-0.3, 0.8)
SKIN = (0.0, 0.6)
LIP_GAIN, LIP_SHIFT = 0.2, 9.0  # deviation, log of the channels together and grey levels of each
BEYOND_GAIN, BEYOND_SHIFT = 0.6, 40.0  # the same of what is not the face
MOST_SMILE: Final = 0.6  # of `other_mouths.SMILE_OUT` and `SMILE_UP`
_GRID: Final = 17  # points a side at which the movement between two faces is computed
_SMOOTHING: Final = 10.0  # of the thin plate, px²: landmarks are off by some pixels
_SOFT: Final = 0.04  # blur of the lips' edge, in widths of the mouth
_JAW_SOFT: Final = 2.0  # px, blur of the jaw's edge


def joint_face(
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    landmarks: tuple[NDArray[np.float32], NDArray[np.float32]],
    proportions: float,
    skin: float,
) -> NDArray[np.uint8]:
    """Return one face [H, W, 3] of two of the same size, each warped onto landmarks [68, 2] between theirs.

    proportions, skin: the second one's share of the landmarks, and of the colours. The warp is a thin-plate spline
    (Bookstein 1989) with the picture's border held in place.
    """
    height, width = pictures[0].shape[:2]
    first, second = (points.astype(np.float64) for points in landmarks)
    # Three points a side keep the border where it is.
    border = np.array([(x, y) for x in (0, 0.5, 1) for y in (0, 0.5, 1) if (x, y) != (0.5, 0.5)]) * (
        width - 1,
        height - 1,
    )
    centres = np.concatenate([first + proportions * (second - first), border])
    moves = np.concatenate([second - first, np.zeros_like(border)])
    plate = RBFInterpolator(centres, moves, smoothing=_SMOOTHING)
    across, down = np.meshgrid(np.linspace(0, width - 1, _GRID), np.linspace(0, height - 1, _GRID))
    coarse = plate(np.stack([across.ravel(), down.ravel()], axis=1)).reshape(_GRID, _GRID, 2).astype(np.float32)
    # Between its points the grid is read as remap reads a picture, so that its outermost points are the border's.
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    step = np.float32((_GRID - 1) / (width - 1)), np.float32((_GRID - 1) / (height - 1))
    move = cv2.remap(coarse, x * step[0], y * step[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    warped = [
        cv2.remap(
            np.ascontiguousarray(picture),
            x + share * move[..., 0],
            y + share * move[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for picture, share in zip(pictures, (-np.float32(proportions), np.float32(1 - proportions)), strict=True)
    ]
    return np.asarray(cv2.addWeighted(warped[0], 1 - skin, warped[1], skin, 0.0), np.uint8)


@dataclass(frozen=True)
class Lips:
    """Lips of a person: `gain` [3] and `shift` [3] of their colours; how far the corners smile, −1/3…`MOST_SMILE`."""

    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    smile: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, smiling: bool) -> Lips:
        """Return random lips."""
        gain = np.exp(rng.normal(0.0, LIP_GAIN) + rng.normal(0.0, LIP_GAIN / 3, 3))
        shift = rng.normal(0.0, LIP_SHIFT, 3)
        return cls(
            gain.astype(np.float32), shift.astype(np.float32), rng.uniform(-1 / 3, MOST_SMILE) if smiling else 0.0
        )

    def __call__(self, picture: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return a picture [H, W, 3] with these lips; landmarks [68, 2] in its pixels, the face about upright."""
        corners = landmarks[[lm.MOUTH_LEFT, lm.MOUTH_RIGHT]].astype(np.float64)
        width = float(corners[1, 0] - corners[0, 0])
        left, top = np.maximum(corners.min(0) - width, 0).astype(int)
        right, bottom = np.minimum(corners.max(0) + width, picture.shape[1::-1]).astype(int)
        if width < 2 or right - left < 2 or bottom - top < 2:
            return picture
        part = picture[top:bottom, left:right].astype(np.float32)
        points = landmarks - np.array([left, top], np.float32)
        lips = np.zeros(part.shape[:2], np.float32)
        cv2.fillPoly(lips, [np.rint(points[lm.OUTER_LIP]).astype(np.int32)], (1.0,))
        cv2.fillPoly(lips, [np.rint(points[lm.INNER_LIP]).astype(np.int32)], (0.0,))
        lips = cv2.GaussianBlur(lips, (0, 0), max(_SOFT * width, 0.5))[..., None]
        part += lips * (part * (self.gain - 1) + self.shift)
        if self.smile:
            x, y = np.meshgrid(np.arange(right - left, dtype=np.float64), np.arange(bottom - top, dtype=np.float64))
            by = self.smile * width * np.array([[-SMILE_OUT, -SMILE_UP], [SMILE_OUT, -SMILE_UP]])
            back = pull(x, y, corners - (left, top) + by, by, width)
            source = (x - back[..., 0]).astype(np.float32), (y - back[..., 1]).astype(np.float32)
            part = cv2.remap(part, *source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        result = picture.copy()
        result[top:bottom, left:right] = np.clip(np.rint(part), 0, 255)
        return result


@dataclass(frozen=True)
class Beyond:
    """What is beside and below a face: `gain` [3] and `shift` [3] of its colours. Dark collars, light walls."""

    gain: NDArray[np.float32]
    shift: NDArray[np.float32]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Beyond:
        """Return random surroundings."""
        gain = np.exp(rng.normal(0.0, BEYOND_GAIN) + rng.normal(0.0, BEYOND_GAIN / 3, 3))
        shift = rng.normal(0.0, BEYOND_SHIFT) + rng.normal(0.0, BEYOND_SHIFT / 3, 3)
        return cls(gain.astype(np.float32), shift.astype(np.float32))

    def __call__(self, picture: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return a picture [H, W, 3] whose face, down to the jaw of landmarks [68, 2], is left as it is."""
        jaw = landmarks[lm.JAW]
        above = np.array([(jaw[-1, 0], 0.0), (jaw[0, 0], 0.0)], np.float32)
        face = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(face, [np.rint(np.concatenate([jaw, above])).astype(np.int32)], (255,))
        face = cv2.GaussianBlur(face, (0, 0), _JAW_SOFT)
        levels = np.arange(256, dtype=np.float32)[:, None] * self.gain + self.shift
        other = cv2.LUT(picture, np.clip(np.rint(levels), 0, 255).astype(np.uint8)[None])
        share = cv2.merge([face, face, face])
        kept = cv2.multiply(picture, share, scale=1 / 255)
        return np.asarray(cv2.add(kept, cv2.multiply(other, cv2.bitwise_not(share), scale=1 / 255)), np.uint8)
