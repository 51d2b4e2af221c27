"""The mouth at rest where nothing is said: one is generated for each pause and shown in all its frames.

It is put where each frame's face is, and cross-faded with what is generated on the speech's side of the pause's ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, GeneratedFaces, MouthMask

_FADE_S: Final = 0.12
"""A mouth closes in about as long; three frames at 25 a second."""

# What moves with the skull and not with speech or blinks, so that it says where a mouth belongs.
_STABLE: Final = (
    *range(lm.NOSE_BRIDGE.start, lm.NOSE_BASE.stop),
    lm.EYE_OUTER_LEFT,
    lm.EYE_INNER_LEFT,
    lm.EYE_INNER_RIGHT,
    lm.EYE_OUTER_RIGHT,
)
_HELD: Final = 2  # resting mouths: a chunk may fade out of one pause and into the next
# How much of the skin around the lips comes with them, and over what width it gives way to the frame's own, in
# distances between the outer eye corners. The whole mask would not do: where a head turns, its edge shows on the cheek.
_SKIN, _EDGE = 0.1, 0.15
_EYES_OF_SIDE: Final = 0.4  # that distance over the crop's side, where an aligner supplies no eyes


@dataclass(frozen=True, slots=True)
class RestPlan:
    """Where the mouth rests in N output frames.

    weight: float32 [N], how much of it is the resting mouth; at 1 nothing is generated for that frame.
    pause: int64 [N], the number of the pause it rests in, −1 where `weight` is 0.
    anchors: int64 [P], for each pause the output frame whose face its resting mouth is generated on.
    """

    weight: NDArray[np.float32]
    pause: NDArray[np.int64]
    anchors: NDArray[np.int64]

    @classmethod
    def none(cls, frames: int) -> RestPlan:
        """Return the plan by which every frame is generated."""
        return cls(np.zeros(frames, np.float32), np.full(frames, -1, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of(cls, spoken: NDArray[np.bool_], scene: NDArray[np.int64], fps: Fraction) -> RestPlan:
        """Let the mouth rest in every pause of every scene.

        spoken: [N]. scene: [N], −1 where a frame is passed through. A pause ends where its scene does; towards speech
        it fades. One too short to do more than fade is no pause.
        """
        plan = cls.none(len(spoken))
        fade = max(2, round(_FADE_S * fps))
        ramp = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
        still = np.where(spoken, -1, scene)
        edges = np.flatnonzero(np.diff(still, prepend=-1, append=-1))
        anchors: list[int] = []
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            rise = fade if start > 0 and scene[start - 1] == scene[start] else 0
            fall = fade if stop < len(scene) and scene[stop] == scene[start] else 0
            if still[start] < 0 or stop - start <= rise + fall:
                continue
            weight = plan.weight[start:stop]
            weight[:] = 1
            weight[:rise] = ramp[:rise]
            weight[stop - start - fall :] = ramp[:fall][::-1]
            plan.pause[start:stop] = len(anchors)
            anchors.append((start + stop) // 2)
        return cls(plan.weight, plan.pause, np.array(anchors, np.int64))


@dataclass(frozen=True, slots=True)
class _Mouth:
    """A resting mouth: `pixels` [S, S, 3] of the crop it was generated in, and that crop's landmarks [68, 2] there."""

    pixels: NDArray[np.float32]
    points: NDArray[np.float64]


class RestingMouths:
    """Holds the resting mouth of the pause at hand and shows it in other frames of its scene."""

    def __init__(self, plan: RestPlan, silence: AudioFeatures | None) -> None:
        """Begin without any; `silence` are one frame's features where nothing is heard, None if there is no pause."""
        self.plan = plan
        self._silence = silence
        self._held: dict[int, _Mouth] = {}

    def features(self, frame: int) -> AudioFeatures:
        """Return the features of silence for one output frame."""
        if self._silence is None:
            raise ValueError("a plan without a pause asks for no silence")
        return AudioFeatures(frame, self._silence.values)

    def keep(self, faces: AlignedFaces, generated: GeneratedFaces) -> None:
        """Take the mouth generated on the anchor of a pause; lets go of all but the latest."""
        pause = int(self.plan.pause[faces.track.start])
        self._held[pause] = _Mouth(generated.pixels[0], _points(faces.track, 0))
        while len(self._held) > _HELD:
            del self._held[min(self._held)]

    def show(self, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces | None) -> GeneratedFaces:
        """Return `generated`, None where all frames only rest, with the resting mouth as far as the plan says."""
        start = faces.track.start
        weights = self.plan.weight[start : start + len(faces.track)]
        if generated is not None and not weights.any():
            return generated
        out = np.zeros(faces.pixels.shape, np.float32) if generated is None else generated.pixels.copy()
        for row in np.flatnonzero(weights).tolist():
            face = faces.pixels[row].astype(np.float32) / np.float32(255)
            mouth = self._held[int(self.plan.pause[start + row])]
            _lay(face, mouth, _points(faces.track, row), mask.generate[row])
            out[row] += weights[row] * (face - out[row])
        return GeneratedFaces(out)


def _points(track: FaceTrack, row: int) -> NDArray[np.float64]:
    """Return the landmarks of one row in its crop, [68, 2]."""
    matrix = track.frame_to_crop[row]
    points: NDArray[np.float64] = track.landmarks[row].astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return points


def _lay(face: NDArray[np.float32], mouth: _Mouth, points: NDArray[np.float64], mask: NDArray[np.float32]) -> None:
    """Lay a resting mouth over `face` [S, S, 3], in place, where its landmarks are `points` [68, 2]."""
    side = len(face)
    matrix = _similarity(mouth.points[list(_STABLE)], points[list(_STABLE)])
    lips = np.concatenate([points[lm.LIPS], mouth.points[lm.LIPS] @ matrix[:, :2].T + matrix[:, 2]])
    eyes = float(np.linalg.norm(points[lm.EYE_OUTER_RIGHT] - points[lm.EYE_OUTER_LEFT]))
    alpha = mask * _around(lips, eyes if np.isfinite(eyes) else _EYES_OF_SIDE * side, side)
    x, y, width, height = cv2.boundingRect((alpha > 0).view(np.uint8))
    if width == 0:
        return
    alpha, below = alpha[y : y + height, x : x + width, None], face[y : y + height, x : x + width]
    matrix[:, 2] -= (x, y)
    warped = cv2.warpAffine(
        mouth.pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    change = np.asarray(warped, np.float32) - below
    # The light changes as a head turns: at the patch's edge both should be alike.
    edge = alpha * (1 - alpha)
    if edge.any():
        change -= (edge * change).sum(axis=(0, 1)) / edge.sum()
    below += alpha * change


def _around(lips: NDArray[np.float64], unit: float, side: int) -> NDArray[np.float32]:
    """Return alpha [S, S] of a soft patch around lips [k, 2], crop px; 1 everywhere where the aligner gives no lips."""
    if not np.isfinite(lips).all():
        return np.ones((side, side), np.float32)
    outside = np.full((side, side), 255, np.uint8)
    hull = cv2.convexHull(np.rint(lips).astype(np.int32))
    cv2.fillConvexPoly(outside, hull, (0,))
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_5)
    ramp = np.clip((distance - np.float32(_SKIN * unit)) / np.float32(max(_EDGE * unit, 1.0)), 0, 1)
    alpha: NDArray[np.float32] = 1 - ramp * ramp * (3 - 2 * ramp)
    return alpha


def _similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the turn, scale and shift [2, 3] that best take points [k, 2] to others; none where two are not known.

    Least squares over complex numbers: target − mean ≈ factor · (source − mean).
    """
    both = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    a, b = (points[both] @ (1, 1j) for points in (source, target))
    if len(a) < 2 or not np.ptp(a):
        return np.eye(2, 3)
    centred = a - a.mean()
    factor = np.vdot(centred, b) / np.vdot(centred, centred)
    shift = b.mean() - factor * a.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
