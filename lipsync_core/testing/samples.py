"""What the checks and the pytest fixtures are made of: a drawn face that talks, and a sound like speech.

Everything is computed from a frame's or a sample's number alone, so any part of a clip can be made by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, FrameBatch, MouthMask, VideoInfo

FPS: Final = Fraction(25)
WIDTH: Final = 288
HEIGHT: Final = 320
EYES: Final = 64.0  # px between the pupils
NATIVE_SIDE: Final = 192  # px, of the crops given to a denoiser that takes any

_MIDDLE: Final = np.array([144.0, 130.0])  # between the pupils, px
_SKIN: Final = (222.0, 172.0, 146.0)
_CORNER: Final = (48, 78)  # of the crop in the frame, px

Colour = tuple[float, float, float]
Box = tuple[slice, slice]


def opening(frames: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the mouth is open in each frame [n], 0…1: about three syllables a second."""
    seconds = np.asarray(frames) / float(FPS)
    result: NDArray[np.float64] = (0.5 - 0.5 * np.cos(2 * np.pi * 3.1 * seconds)) * (0.7 + 0.3 * np.sin(1.7 * seconds))
    return result


def face_points(frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the 68 points of the face drawn in each frame, float32 [n, 68, 2], px. The head sways a little."""
    return np.stack([_points(int(frame), float(open_)) for frame, open_ in zip(frames, opening(frames), strict=True)])


def _points(frame: int, open_: float) -> NDArray[np.float32]:
    """Proportions of an adult's face in distances between the pupils, from the middle between them."""
    angle = np.linspace(np.pi, 0, 17)
    jaw = np.column_stack([1.1 * np.cos(angle), 0.1 + (1.75 + 0.22 * open_) * np.sin(angle) ** 1.15])
    brow = np.column_stack([np.linspace(-0.35, 0.35, 5), [-0.3, -0.39, -0.42, -0.39, -0.33]])
    eye = np.column_stack([[-0.23, -0.09, 0.09, 0.23, 0.09, -0.09], [0, -0.09, -0.09, 0, 0.07, 0.07]])
    bridge = np.column_stack([np.zeros(4), np.linspace(0.05, 0.68, 4)])
    base = np.column_stack([np.linspace(-0.22, 0.22, 5), [0.78, 0.82, 0.84, 0.82, 0.78]])
    turn = np.linspace(np.pi, 3 * np.pi, 13)[:12]
    drop = 0.16 * open_
    outer = np.column_stack([0.44 * np.cos(turn), 1.18 + drop + (0.15 + drop) * np.sin(turn)])
    inward = np.linspace(np.pi, 3 * np.pi, 9)[:8]
    inner = np.column_stack([0.35 * np.cos(inward), 1.18 + drop + (0.01 + drop) * np.sin(inward)])
    left, right = np.array([-0.5, 0.0]), np.array([0.5, 0.0])
    head = np.concatenate([jaw, brow + left, brow + right, bridge, base, eye + left, eye + right, outer, inner])
    sway = np.array([2.0 * np.sin(frame / 9), 1.5 * np.cos(frame / 7)])
    return np.asarray(head * EYES + _MIDDLE + sway, np.float32)


def frames(start: int, stop: int) -> FrameBatch:
    """Return frames `start`…`stop` − 1 of the clip."""
    return FrameBatch(start, np.stack([_frame(number) for number in range(start, stop)]))


@lru_cache(maxsize=64)
def _frame(number: int) -> NDArray[np.uint8]:
    return _draw(face_points(np.array([number]))[0])


def empty_frames(start: int, stop: int) -> FrameBatch:
    """Return frames of the same size without a face: the background alone."""
    return FrameBatch(start, np.repeat(_background()[None], stop - start, axis=0))


def _background() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    shade = 92 + 36 * rows / HEIGHT + 10 * np.sin(columns / 23)
    return np.asarray(np.clip(shade[..., None] * [0.86, 1.0, 1.1], 0, 255), np.uint8)


class _Canvas:
    """A frame being painted in soft ovals and outlines; places and radii in distances between the pupils."""

    def __init__(self, middle: NDArray[np.float32]) -> None:
        self.image = _background().astype(np.float32)
        self.middle = middle

    def oval(
        self, at: tuple[float, float], radii: tuple[float, float], soft: float, colour: Colour, strength: float = 1.0
    ) -> None:
        """Paint an ellipse whose edge is `soft` of its radius wide."""
        centre = self.middle + np.array(at) * EYES
        reach = np.array(radii) * EYES * (1 + soft)
        box = _box(centre - reach, centre + reach)
        rows, columns = np.ogrid[box]
        x = (columns - centre[0]) / (radii[0] * EYES)
        y = (rows - centre[1]) / (radii[1] * EYES)
        self._blend(box, np.clip((1 - np.hypot(x, y)) / soft + 0.5, 0, 1), colour, strength)

    def outline(self, shape: NDArray[np.float32], soft: float, colour: Colour, strength: float = 1.0) -> None:
        """Paint a polygon, px, blurred by `soft` px."""
        box = _box(shape.min(axis=0) - 4 * soft, shape.max(axis=0) + 4 * soft)
        cover = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), np.float32)
        corner = [box[1].start, box[0].start]
        cv2.fillPoly(cover, [np.rint((shape - corner) * 16).astype(np.int32)], (1.0,), cv2.LINE_AA, 4)
        self._blend(box, np.asarray(cv2.GaussianBlur(cover, (0, 0), soft)), colour, strength)

    def _blend(self, box: Box, cover: NDArray[np.floating], colour: Colour, strength: float) -> None:
        part = self.image[box]
        part += ((cover * strength)[..., None] * (np.array(colour) - part)).astype(np.float32)


def _box(low: NDArray[np.floating], high: NDArray[np.floating]) -> Box:
    left, top = (max(int(value), 0) for value in low)
    return slice(top, min(int(high[1]) + 2, HEIGHT)), slice(left, min(int(high[0]) + 2, WIDTH))


def _draw(points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw one face with its edges soft, since detectors know photographs."""
    middle = points[36:48].mean(axis=0)
    canvas = _Canvas(middle)
    canvas.oval((0, 0.1), (1.42, 1.75), 0.06, (62, 44, 36))  # hair
    canvas.oval((0, 2.3), (0.62, 0.9), 0.1, (186, 138, 116))  # neck
    canvas.oval((0, 3.6), (2.1, 1.3), 0.06, (60, 76, 104))  # clothes
    forehead = np.array([[1.0, -0.75], [0.6, -1.05], [0, -1.15], [-0.6, -1.05], [-1.0, -0.75]]) * EYES + middle
    head = np.concatenate([points[lm.JAW], forehead]).astype(np.float32)
    canvas.outline(head, 1.5, (168, 122, 102))
    canvas.outline((head - middle) * np.float32(0.9) + middle, 9.0, _SKIN)  # darker towards the edge
    for side in (-0.5, 0.5):
        canvas.oval((side, -0.02), (0.36, 0.24), 0.9, (150, 104, 88), 0.5)  # the eye's hollow
        canvas.oval((side, 0.75), (0.35, 0.3), 1.4, (232, 150, 130), 0.35)  # cheek
    for eye in (lm.EYE_LEFT, lm.EYE_RIGHT):
        shape = points[eye]
        x, y = (shape.mean(axis=0) - middle) / EYES
        canvas.outline(shape, 0.8, (236, 232, 228))
        canvas.oval((x, y), (0.085, 0.085), 0.25, (84, 60, 44))
        canvas.oval((x, y), (0.045, 0.045), 0.25, (18, 14, 14))
        canvas.outline(np.concatenate([shape[:4], shape[3::-1] - [0, 3]]), 0.8, (54, 36, 32), 0.9)  # lashes
    for brow in (lm.BROW_LEFT, lm.BROW_RIGHT):
        canvas.outline(np.concatenate([points[brow], points[brow][::-1] + np.array([0, 5])]), 1.2, (74, 52, 42), 0.9)
    canvas.oval((0.1, 0.4), (0.08, 0.45), 1.2, (160, 112, 94), 0.5)  # the nose's shadow
    canvas.oval((-0.03, 0.62), (0.1, 0.12), 1.2, (244, 206, 184), 0.7)
    canvas.oval((0, 0.82), (0.26, 0.07), 1.0, (140, 90, 78), 0.6)
    for side in (-0.11, 0.11):
        canvas.oval((side, 0.8), (0.06, 0.035), 0.6, (70, 40, 36), 0.9)
    canvas.outline(points[lm.OUTER_LIP], 1.0, (182, 92, 90))
    inner = points[lm.INNER_LIP]
    canvas.outline(inner, 0.6, (58, 22, 24))
    teeth = np.concatenate([inner[:5], inner[4::-1] + 0.35 * (inner[[4, 5, 6, 7, 0]] - inner[4::-1])])
    canvas.outline(teeth, 0.6, (226, 220, 208))
    x, y = (points[lm.LOWER_LIP_BOTTOM] + [0, 7] - middle) / EYES
    canvas.oval((x, y), (0.26, 0.07), 1.2, (168, 118, 100), 0.5)
    return np.clip(np.rint(canvas.image), 0, 255).astype(np.uint8)


def speech(seconds: float, rate: int) -> NDArray[np.float32]:
    """Return mono samples [m] like speech: a voice of 120 Hz through moving formants, in syllables of `opening`."""
    t = np.arange(round(seconds * rate)) / rate
    loud = opening(t * float(FPS))
    pitch = 2 * np.pi * np.cumsum(120 + 12 * np.sin(2 * np.pi * 0.9 * t)) / rate
    first, second = 400 + 350 * loud, 1400 + 500 * np.sin(2 * np.pi * 1.3 * t)
    sound = np.zeros(len(t))
    for harmonic in range(1, 26):
        hz = 120.0 * harmonic
        gain = 1 / (1 + ((hz - first) / 90) ** 2) + 0.5 / (1 + ((hz - second) / 120) ** 2)
        sound += gain * np.sin(harmonic * pitch) * (hz < 0.45 * rate)
    return (0.25 * loud * sound).astype(np.float32)


def track(start: int, stop: int, side: int = NATIVE_SIDE) -> FaceTrack:
    """Return the face of frames `start`…`stop` − 1 as an aligner would, in crops of `side` px."""
    n, scale = stop - start, side / NATIVE_SIDE
    matrix = np.array([[scale, 0.0, -_CORNER[0] * scale], [0.0, scale, -_CORNER[1] * scale]])
    points = face_points(np.arange(start, stop))
    return FaceTrack(start, np.repeat(matrix[None], n, axis=0), np.ones(n, np.bool_), points, side)


def aligned(start: int, stop: int, side: int = NATIVE_SIDE) -> AlignedFaces:
    """Return the crops of frames `start`…`stop` − 1."""
    there = track(start, stop, side)
    rows = zip(frames(start, stop).pixels, there.frame_to_crop, strict=True)
    return AlignedFaces(there, np.stack([_cut(frame, matrix, side) for frame, matrix in rows]))


def _cut(frame: NDArray[np.uint8], matrix: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.warpAffine(frame, matrix, (side, side)), np.uint8)


def mouth_mask(faces: AlignedFaces) -> MouthMask:
    """Return 1 within an oval around the lips and the chin of each crop."""
    generate = np.zeros(faces.pixels.shape[:3], np.float32)
    there = faces.track
    for cover, matrix, points in zip(generate, there.frame_to_crop, there.landmarks, strict=True):
        x, y = points[lm.LIPS].mean(axis=0) @ matrix[:, :2].T + matrix[:, 2]
        radii = (round(0.62 * EYES * matrix[0, 0]), round(0.55 * EYES * matrix[0, 0]))
        cv2.ellipse(cover, (round(x), round(y)), radii, 0, 0, 360, (1.0,), -1)
    return MouthMask(generate)


def features(start: int, stop: int, shape: tuple[int, int]) -> AudioFeatures:
    """Return features of frames `start`…`stop` − 1: random numbers, those of a frame always the same."""
    rows = [np.random.default_rng([7, frame]).standard_normal(shape) for frame in range(start, stop)]
    return AudioFeatures(start, np.stack(rows).astype(np.float32))


class SampleClip:
    """A `SourceClip` of the drawn face: one scene, each output frame made from the source frame of its number."""

    def __init__(self, count: int, side: int, feature_shape: tuple[int, int]) -> None:
        self._count = count
        self._side = side
        self._shape = feature_shape

    @property
    def video(self) -> VideoInfo:
        """Facts of the clip."""
        return VideoInfo(WIDTH, HEIGHT, FPS, self._count, True)

    @property
    def scenes(self) -> tuple[range, ...]:
        """One scene."""
        return (range(self._count),)

    @property
    def source_frames(self) -> NDArray[np.int64]:
        """The source frame of each output frame, [N]."""
        return np.arange(self._count)

    @property
    def output_fps(self) -> float:
        """Output frames a second: the clip's."""
        return float(FPS)

    def tracks(self) -> Iterator[FaceTrack]:
        """Yield the scene's track."""
        yield track(0, self._count, self._side)

    def faces(self, frames: NDArray[np.int64] | None = None) -> Iterator[AlignedFaces]:
        """Yield the crops, one frame at a time."""
        for frame in range(self._count) if frames is None else np.unique(frames).tolist():
            yield aligned(frame, frame + 1, self._side)

    def audio(self) -> Iterator[AudioFeatures] | None:
        """Yield the features of the clip's own sound."""
        return iter([features(0, self._count, self._shape)])

    def target_audio(self) -> Iterator[AudioFeatures]:
        """Yield the features of the new sound."""
        half = self._count // 2
        yield features(0, half, self._shape)
        yield features(half, self._count, self._shape)
