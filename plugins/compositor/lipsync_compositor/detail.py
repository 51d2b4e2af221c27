"""What a generated face of low resolution lacks beside its source: colours, edges, grain, and the light of the moment.

All of it is made in the frame's own pixels, after the face has been laid back and before it is blended in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm

Floats = NDArray[np.float32]

# A cheek is half-way from the outer corner of the eye to that of the mouth: clear of lids, nose and lips.
_CHEEKS: Final = (
    (lm.EYE_OUTER_LEFT, lm.MOUTH_LEFT),
    (lm.EYE_OUTER_RIGHT, lm.MOUTH_RIGHT),
)
_CHEEK_HALF: Final = 0.16  # half its side, in distances between the outer eye corners
_LEAST_CHEEK: Final = 6  # px of its side; a smaller one says nothing of grain
_GRAIN_LIMIT: Final = 3.0  # deviations; what is stronger in a cheek is a line of the face, not grain
_DEVIATION_OF_MEDIAN: Final = 1.4826  # of a normal distribution, over the median of its absolute values
_INSIDE: Final = 0.9  # alpha from which a pixel is taken as generated
_SHARPEN_REACH: Final = 1.0  # deviation of the unsharp mask, in pixels of the crop
_COLOUR_STEP: Final = 2  # every second pixel tells the colours well enough
_COLOUR_FLOOR: Final = 0.5  # levels²; of a variance, so that a face of one colour is not blown up
_COLOUR_LIMITS: Final = 0.5, 2.0  # what a colour's spread may be multiplied by
_RING_STEP: Final = 2  # every second pixel of the ring tells the light well enough
_LIGHT_LIMIT: Final = 24.0  # levels; a larger difference at the ring is another shape, not another light
_LEAST_RING: Final = 30  # pixels


@dataclass(frozen=True, slots=True)
class Finish:
    """How much of each is given: 0 none, 1 all. sharpen: of an unsharp mask."""

    sharpen: float
    grain: float
    light: float
    colour: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.sharpen or self.grain or self.light or self.colour)


def finish(
    face: Floats,
    soft: Floats,
    frame: NDArray[np.uint8],
    corner: tuple[int, int],
    landmarks: NDArray[np.float32],
    scale: float,
    how: Finish,
) -> None:
    """Change `face`, levels 0…255 [h, w, 3] in a box of `frame` whose corner is (x, y), in place.

    soft: alpha [h, w] of the blend to come. landmarks: [68, 2], frame px. scale: frame px a crop px.
    """
    x, y = corner
    below = frame[y : y + face.shape[0], x : x + face.shape[1]]
    blur = _SHARPEN_REACH * max(scale, 1.0)
    if how.colour:
        face += np.float32(how.colour) * (_in_colours_of(below, face, soft) - face)
    if how.sharpen:
        face += np.float32(how.sharpen) * (face - cv2.GaussianBlur(face, (0, 0), blur))
    if how.light:
        face += np.float32(how.light) * _light(face, soft, below)
    if how.grain:
        cheek = _cheek(frame, landmarks)
        if cheek is not None:
            (left, top), source = cheek
            face += np.float32(how.grain) * _grain(face, soft, below, source, (left - x, top - y), blur)


def _in_colours_of(below: NDArray[np.uint8], face: Floats, soft: Floats) -> Floats:
    """Return the face with its chroma spread as the source's is where the mask lies: same means and covariance.

    Brightness stays, for an open mouth is dark whoever's it is. The map is the one that moves colours least: Pitié and
    Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer" (2007).
    """
    inside = soft[::_COLOUR_STEP, ::_COLOUR_STEP] > _INSIDE
    if np.count_nonzero(inside) < _LEAST_RING:
        return face
    ours = cv2.cvtColor(face, cv2.COLOR_RGB2YCrCb)
    theirs = cv2.cvtColor(below.astype(np.float32), cv2.COLOR_RGB2YCrCb)
    own, wanted = (p[::_COLOUR_STEP, ::_COLOUR_STEP][inside][:, 1:].astype(np.float64) for p in (ours, theirs))
    floor = _COLOUR_FLOOR * np.eye(2)
    root, back = _roots(np.cov(own.T) + floor)
    middle, _ = _roots(root @ (np.cov(wanted.T) + floor) @ root)
    gains, axes = np.linalg.eigh(back @ middle @ back)
    turn = (axes * np.clip(gains, *_COLOUR_LIMITS)) @ axes.T
    ours[..., 1:] = (ours[..., 1:] - own.mean(axis=0)) @ turn + wanted.mean(axis=0)
    return np.asarray(cv2.cvtColor(ours, cv2.COLOR_YCrCb2RGB), np.float32)


def _roots(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the square root of a positive definite matrix [2, 2], and its inverse."""
    values, axes = np.linalg.eigh(matrix)
    return (axes * values**0.5) @ axes.T, (axes * values**-0.5) @ axes.T


def _light(face: Floats, soft: Floats, below: NDArray[np.uint8]) -> Floats:
    """Return what to add [h, w, 3] so that the face has the source's light where the two meet: a plane a colour."""
    rows, columns = np.nonzero((soft[::_RING_STEP, ::_RING_STEP] > 0) & (soft[::_RING_STEP, ::_RING_STEP] < _INSIDE))
    rows, columns = rows * _RING_STEP, columns * _RING_STEP
    if len(rows) < _LEAST_RING:
        return np.zeros_like(face)
    apart = np.clip(below[rows, columns] - face[rows, columns], -_LIGHT_LIMIT, _LIGHT_LIMIT)
    height, width = soft.shape
    # Centred and in halves of the box, so that the three unknowns are of one size.
    at = np.stack([np.ones(len(rows)), 2 * columns / width - 1, 2 * rows / height - 1], axis=1).astype(np.float32)
    plane = np.linalg.lstsq(at, apart, rcond=None)[0].astype(np.float32)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    field: Floats = plane[0] + across * plane[1] + down * plane[2]
    return field


def _cheek(frame: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> tuple[tuple[int, int], Floats] | None:
    """Return the corner (x, y) and the pixels of the cheek that is seen best; None where neither is seen."""
    points = landmarks.astype(np.float64)
    eyes = float(np.linalg.norm(points[lm.EYE_OUTER_RIGHT] - points[lm.EYE_OUTER_LEFT]))
    middles = np.array([(points[eye] + points[mouth]) / 2 for eye, mouth in _CHEEKS])
    if not np.isfinite(middles).all() or not np.isfinite(eyes):
        return None
    half = _CHEEK_HALF * eyes
    nose = points[lm.NOSE_TIP] if np.isfinite(points[lm.NOSE_TIP]).all() else middles.mean(axis=0)
    nearest_last = sorted(middles, key=lambda middle: -abs(float(middle[0] - nose[0])))
    height, width = frame.shape[:2]
    for middle in nearest_last:
        left, top = np.rint(middle - half).astype(int)
        right, bottom = np.rint(middle + half).astype(int)
        whole = left >= 0 and top >= 0 and right <= width and bottom <= height
        if whole and min(right - left, bottom - top) >= _LEAST_CHEEK:
            return (int(left), int(top)), frame[top:bottom, left:right].astype(np.float32)
    return None


def _grain(
    face: Floats, soft: Floats, below: NDArray[np.uint8], cheek: Floats, place: tuple[int, int], blur: float
) -> Floats:
    """Return grain [h, w, 3]: the cheek's, mirrored over and over, until the face has the source's fine detail.

    It is never stronger than in the cheek: laid on thicker, its repetition shows as a pattern.
    """
    grain = cheek - cv2.GaussianBlur(cheek, (0, 0), blur)
    deviation = _DEVIATION_OF_MEDIAN * float(np.median(np.abs(grain)))  # a few lines of the face do not change it
    if deviation == 0:
        return np.zeros_like(face)
    np.clip(grain, -_GRAIN_LIMIT * deviation, _GRAIN_LIMIT * deviation, out=grain)
    inside = soft > _INSIDE
    lacking, most = 1.0, _detail(grain)
    if inside.any() and most > 0:
        wanted, own = (_detail(picture, inside) for picture in (below.astype(np.float32), face))
        lacking = min(1.0, (max(0.0, wanted - own) / most) ** 0.5)
    rows = _mirrored(np.arange(face.shape[0]) - place[1], len(grain))
    columns = _mirrored(np.arange(face.shape[1]) - place[0], grain.shape[1])
    laid: Floats = np.float32(lacking) * grain[rows[:, None], columns[None]]
    return laid


def _detail(picture: Floats, inside: NDArray[np.bool_] | None = None) -> float:
    """Return the variance of the Laplacian of luma, levels²: what `lipsync eval` calls sharpness."""
    fine = cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    return float((fine if inside is None else fine[inside]).var())


def _mirrored(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return indices brought into 0 … length − 1 as by mirrors at both ends."""
    turn = index % (2 * length)
    return np.minimum(turn, 2 * length - 1 - turn)
