"""The denoiser backend `lipstick`."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core import landmarks as lm
from lipsync_core.errors import BackendError
from lipsync_core.types import AlignedFaces, AudioFeatures, GeneratedFaces, MouthMask

_BITS: Final = 4  # fractional bits of the outline's coordinates
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_SILENT, _LOUD = -13.0, -2.0  # the natural logarithm of a 25 ms window's energy, samples in −1…1


class Options(BaseModel):
    """Options of `lipstick`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    colour: str = Field("#c01030", pattern="^#[0-9a-fA-F]{6}$", description="of the lips, as #rrggbb")
    strength: float = Field(0.8, ge=0, le=1, description="share of the colour where the sound is loudest")
    least: float = Field(0.3, ge=0, le=1, description="share of `strength` that is left in silence")


class Lipstick:
    """Tints the lips and keeps their light and shade; the louder the sound, the stronger."""

    feature_shape = (5, 13)  # of the audio encoder mfcc-kaldi: the middle row's first number is the energy
    crop_size: int | None = None
    max_frames = 16
    latent_shape: tuple[int, ...] | None = None

    def __init__(self, options: Options) -> None:
        self._options = options
        red, green, blue = (int(options.colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        self._colour = np.array([red, green, blue], np.float32)

    def generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32] | None
    ) -> GeneratedFaces:
        """Return the crops with painted lips, float32 0…1; raises `BackendError` where the aligner finds no lips."""
        lips = _in_crop(faces)
        if np.isnan(lips).any():
            raise BackendError(
                "The denoiser lipstick needs the lips, and the aligner leaves them out.",
                "Choose an aligner that gives all 68 points, such as facemesh-opencv.",
            )
        pixels = faces.pixels.astype(np.float32) / np.float32(255)
        share = self._share(audio.values[:, 2, 0])
        for row, shape in enumerate(lips):
            cover = _cover(shape, faces.track.crop_size) * mask.generate[row] * share[row]
            light = pixels[row] @ _LUMA / (self._colour @ _LUMA + np.float32(1e-6))
            painted = np.minimum(self._colour * light[..., None], 1)
            pixels[row] += cover[..., None] * (painted - pixels[row])
        return GeneratedFaces(pixels)

    def _share(self, energy: NDArray[np.float32]) -> NDArray[np.float32]:
        loud = np.clip((energy - np.float32(_SILENT)) / np.float32(_LOUD - _SILENT), 0, 1)
        least = np.float32(self._options.least)
        return np.float32(self._options.strength) * (least + (1 - least) * loud)


def _in_crop(faces: AlignedFaces) -> NDArray[np.float64]:
    """Return the lips' points in the crops [n, 20, 2], px."""
    points = faces.track.landmarks[:, lm.LIPS].astype(np.float64)
    matrices = faces.track.frame_to_crop
    return points @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]


def _cover(lips: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Return 1 on the lips and 0 elsewhere, what is between them too, with a soft edge [S, S]."""
    fixed = np.rint(lips * (1 << _BITS)).astype(np.int32)
    drawn = np.zeros((side, side), np.uint8)
    cv2.fillPoly(drawn, [fixed[:12]], (255,), cv2.LINE_AA, _BITS)
    cv2.fillPoly(drawn, [fixed[12:]], (0,), cv2.LINE_AA, _BITS)
    width = float(np.hypot(*(lips[6] - lips[0])))
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), max(0.02 * width, 0.3)), np.float32) / np.float32(255)
