"""Drawn faces that move as told, and a source made of them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, MouthMask, VideoInfo
from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.head import GENERIC_FACE, HeadPose, to_image

SKIN, LIP, INSIDE, TEETH = (205, 160, 135), (180, 80, 80), (50, 20, 20), (225, 220, 205)


def rotation(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> NDArray[np.float64]:
    """Return a rotation [3, 3] from angles in degrees."""
    p, y, r = np.radians([pitch, yaw, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def poses(n: int, scale: float = 60.0, at: tuple[float, float] = (80.0, 80.0), **angles: float) -> HeadPose:
    return HeadPose(np.full(n, scale), np.repeat(rotation(**angles)[None], n, 0), np.tile(np.array(at, float), (n, 1)))


def shapes_of_opening(opening: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shapes [n, 8] of a plain talker: everything follows the inner opening [n]."""
    rest = ms.measure(GENERIC_FACE[None, :, :2])
    follows = np.array([1.0, 0.9, 0.1, 0.1, -0.1, 0.8, 0.4, 0.85])
    return ms.consistent(rest + (opening - rest[0, ms.OPENING])[:, None] * follows)


def landmarks(shapes: NDArray[np.float64], pose: HeadPose) -> NDArray[np.float32]:
    head = ms.move(np.repeat(GENERIC_FACE[None, :, :2], len(shapes), 0), shapes)
    return to_image(head, pose).astype(np.float32)


def draw(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a frame uint8 [height, width, 3] with one face; skin has freckles, so that blurring shows."""
    height, width = size
    rows = np.linspace(60, 120, height)[:, None]
    image = np.ascontiguousarray(np.broadcast_to(rows[..., None], (height, width, 3)).astype(np.uint8))

    def fill(outline: NDArray[np.float32], colour: tuple[int, int, int]) -> None:
        cv2.fillPoly(image, [np.rint(outline * 16).astype(np.int32)], colour, lineType=cv2.LINE_AA, shift=4)

    brow = points[[26, 24, 19, 17]] - [0, 10]
    fill(np.concatenate([points[lm.JAW], brow]), SKIN)
    freckles = np.random.default_rng(1).uniform(0, 1, (60, 2))
    low, high = points[lm.JAW].min(axis=0), points[lm.JAW].max(axis=0)
    for x, y in low + freckles * (high - low):
        cv2.circle(image, (round(float(x)), round(float(y))), 1, (170, 120, 100), -1, cv2.LINE_AA)
    fill(points[lm.OUTER_LIP], LIP)
    inner = points[lm.INNER_LIP]
    fill(inner, INSIDE)
    upper = inner[:5]
    teeth = np.concatenate([upper, upper[::-1] + 0.4 * (inner[[4, 5, 6, 7, 0]] - upper[::-1])])
    fill(teeth.astype(np.float32), TEETH)
    return image


class Source:
    """A `SourceClip` of drawn faces; crops are whole-pixel boxes unless an affine is given."""

    def __init__(
        self,
        points: NDArray[np.float32],
        source_frames: NDArray[np.int64],
        target: NDArray[np.float32],
        own: NDArray[np.float32] | None = None,
        *,
        scenes: tuple[range, ...] | None = None,
        found: NDArray[np.bool_] | None = None,
        size: tuple[int, int] = (170, 170),
        affine: NDArray[np.float64] | None = None,
        side: int = 150,
    ) -> None:
        self.points, self.size = points, size
        self.found = np.ones(len(points), bool) if found is None else found
        self._job, self._target, self._own = source_frames, target, own
        self._scenes = (range(len(points)),) if scenes is None else scenes
        if affine is None:
            affine = np.array([[1.0, 0.0, -8.0], [0.0, 1.0, -14.0]])
        self.track = FaceTrack(0, np.repeat(affine[None], len(points), 0), self.found, points, side)
        self.faces_seen = 0
        self.fps = 25.0  # of the output

    @property
    def video(self) -> VideoInfo:
        return VideoInfo(self.size[1], self.size[0], Fraction(25), len(self.points), self._own is not None)

    @property
    def scenes(self) -> tuple[range, ...]:
        return self._scenes

    @property
    def source_frames(self) -> NDArray[np.int64]:
        return self._job

    @property
    def output_fps(self) -> float:
        return self.fps

    def tracks(self) -> Iterator[FaceTrack]:
        for scene in self._scenes:
            yield self.track[scene.start : scene.stop]

    def crop(self, track: FaceTrack, indices: range | NDArray[np.int64]) -> AlignedFaces:
        pixels = [
            cv2.warpAffine(
                draw(self.points[k], self.size), matrix, (track.crop_size,) * 2, borderMode=cv2.BORDER_REFLECT
            )
            for k, matrix in zip(indices, track.frame_to_crop, strict=True)
        ]
        return AlignedFaces(track, np.stack(pixels))

    def faces(self, frames: NDArray[np.int64] | None = None) -> Iterator[AlignedFaces]:
        for frame in np.flatnonzero(self.found):
            if frames is not None and frame not in frames:
                continue
            self.faces_seen += 1
            yield self.crop(self.track[int(frame) : int(frame) + 1], range(int(frame), int(frame) + 1))

    def audio(self) -> Iterator[AudioFeatures] | None:
        return None if self._own is None else iter([AudioFeatures(0, self._own)])

    def target_audio(self) -> Iterator[AudioFeatures]:
        half = len(self._target) // 2
        yield AudioFeatures(0, np.ascontiguousarray(self._target[:half]))
        yield AudioFeatures(half, np.ascontiguousarray(self._target[half:]))

    def output(self, start: int, stop: int) -> AlignedFaces:
        """Return the base crops of output frames `start`…`stop` − 1."""
        job = self._job[start:stop]
        track = FaceTrack(
            start, self.track.frame_to_crop[job], self.track.found[job], self.points[job], self.track.crop_size
        )
        return self.crop(track, job)


def features(opening: NDArray[np.float64], seed: int = 0, pauses: slice = slice(0)) -> NDArray[np.float32]:
    """Return audio features [n, 1, 137]: an opening in spreads, noise as hidden activations, −60 dB in `pauses`."""
    n = len(opening)
    follows = np.array([1.0, 0.9, 0.1, 0.1, -0.1, 0.8, 0.4, 0.9])
    hidden = np.random.default_rng(seed).normal(size=(n, 128))
    loudness = np.full((n, 1), -6.0)
    loudness[pauses] = -60.0
    return np.concatenate([opening[:, None] * follows, hidden, loudness], axis=1).astype(np.float32)[:, None]


def lower_face_mask(faces: AlignedFaces) -> MouthMask:
    """Return 1 inside the jaw below the nose, and a little beyond the chin."""
    track = faces.track
    generate = np.zeros((len(track), track.crop_size, track.crop_size), np.float32)
    for row, matrix in enumerate(track.frame_to_crop):
        points = track.landmarks[row] @ matrix[:, :2].T + matrix[:, 2]
        nose = points[lm.NOSE_BOTTOM]
        jaw = nose + 1.1 * (points[3:14] - nose)
        outline = np.concatenate([jaw, points[[35, 33, 31]] + [0, 3]])
        cv2.fillPoly(generate[row], [np.rint(outline).astype(np.int32)], (1.0,))
    return MouthMask(generate)


def dark_height(pixels: NDArray[np.float32] | NDArray[np.uint8]) -> int:
    """Return how many rows of the crop's middle third show the dark inside of the mouth."""
    levels = np.asarray(pixels, np.float64) * (255 if pixels.dtype.kind == "f" else 1)
    third = levels.shape[1] // 3
    dark = (levels[:, third : 2 * third].mean(axis=2) < 75).sum(axis=1) > 5
    rows = dark[levels.shape[0] // 2 :]
    return int(rows.sum())
