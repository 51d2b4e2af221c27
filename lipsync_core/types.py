"""What passes between stages: host NumPy arrays, C-contiguous, channels last, RGB, sizes in pixels.

Affine matrices map (x, y) of the frame to (x, y) of the crop, pixel centres at whole numbers. `start` is the index
of the batch's first frame (the output timeline's in the second pass, the source's in the first); `n` is the
number of frames in the batch. Each class checks rank, last axis, dtype and neighbours' lengths as it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm


def _check(
    owner: object, name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, ...]
) -> None:
    """Raise `TypeError` for a wrong dtype and `ValueError` for a wrong shape or memory layout; None is any length."""
    if array.dtype != dtype:
        raise TypeError(f"{type(owner).__name__}.{name} must be {np.dtype(dtype)}, got {array.dtype}")
    if array.ndim != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        want = ", ".join("*" if s is None else str(s) for s in shape)
        raise ValueError(f"{type(owner).__name__}.{name} must have shape [{want}], got {list(array.shape)}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{type(owner).__name__}.{name} must be C-contiguous")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts of a video as it is shown: `width` and `height` after rotation, in px."""

    width: int
    height: int
    fps: Fraction
    frame_count: int | None
    has_audio: bool


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """Consecutive mono samples float32 [m] in −1…1; `start` is the index of the first."""

    start: int
    samples: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check(self, "samples", self.samples, np.float32, (None,))


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """Features float32 [n, tokens, dim] of n consecutive video frames."""

    start: int
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check(self, "values", self.values, np.float32, (None, None, None))


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Consecutive frames uint8 [n, H, W, 3]."""

    start: int
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        _check(self, "pixels", self.pixels, np.uint8, (None, None, None, 3))


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """The chosen face in n consecutive frames.

    frame_to_crop: float64 [n, 2, 3]. found: bool [n]; where false the other fields of that row mean nothing.
    landmarks: float32 [n, 68, 2], frame px, the set of `lipsync_core.landmarks`.
    crop_size: side S of the crop these matrices map into, px; one number for a track.
    """

    start: int
    frame_to_crop: NDArray[np.float64]
    found: NDArray[np.bool_]
    landmarks: NDArray[np.float32]
    crop_size: int

    def __post_init__(self) -> None:
        n = len(self.found)
        _check(self, "found", self.found, np.bool_, (None,))
        _check(self, "frame_to_crop", self.frame_to_crop, np.float64, (n, 2, 3))
        _check(self, "landmarks", self.landmarks, np.float32, (n, lm.COUNT, 2))
        if self.crop_size < 1:
            raise ValueError(f"FaceTrack.crop_size must be positive, got {self.crop_size}")

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, rows: slice) -> FaceTrack:
        """Return the frames of a plain slice, `start` moved along."""
        first, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("a FaceTrack is cut in consecutive frames only")
        cut = slice(first, max(first, stop))
        return FaceTrack(
            self.start + first, self.frame_to_crop[cut], self.found[cut], self.landmarks[cut], self.crop_size
        )


@dataclass(frozen=True, slots=True)
class AlignedFaces:
    """Crops uint8 [n, S, S, 3] of the frames of `track`."""

    track: FaceTrack
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        side = self.track.crop_size
        _check(self, "pixels", self.pixels, np.uint8, (len(self.track), side, side, 3))


@dataclass(frozen=True, slots=True)
class MouthMask:
    """`generate` float32 [n, S, S]: 1 = generate this pixel, 0 = keep the source's."""

    generate: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check(self, "generate", self.generate, np.float32, (None, None, None))


@dataclass(frozen=True, slots=True)
class GeneratedFaces:
    """Generated crops float32 [n, S, S, 3], black 0 to white 1, not yet rounded.

    A decoder may overshoot; the compositor clips after it has pasted, as LatentSync does (FACTS §7).
    """

    pixels: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check(self, "pixels", self.pixels, np.float32, (None, None, None, 3))


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a model was adapted: the mouth's PSNR in dB on frames of the source that it did not learn from.

    before, after: of the model as it was, and of what was kept. step: at which that was reached; 0 where nothing was
    better than the model as it was.
    """

    before: float
    after: float
    step: int
