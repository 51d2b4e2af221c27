"""Measures of pictures, gathered frame by frame."""

from __future__ import annotations

import math
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.quality.metrics import Box

FACE_MARGIN: Final = 0.4  # of the face box around all landmarks, in outer eye corners' distances
SSIM_NEEDS: Final = "skimage"
_SSIM_WINDOW: Final = 7  # scikit-image's own; a smaller picture has no SSIM
# A pixel was changed where the smoothed difference exceeds this, grey levels: encoding at crf 18 stays below it.
_CHANGED: Final = 6.0
_SMOOTH_PX: Final = 2.0
_EDGE_PX: Final = 7  # width of the band about the outline: smoothing moves that outward by up to 3 px
_FEWEST_EDGE: Final = 100  # pixels of a band from which a frame counts


def face_box(landmarks: NDArray[Any], width: int, height: int) -> Box:
    """Return the box around a face [68, 2] px, `FACE_MARGIN` wider on each side, cut to the frame."""
    points = np.asarray(landmarks, np.float64)
    margin = FACE_MARGIN * float(np.linalg.norm(points[lm.EYE_OUTER_RIGHT] - points[lm.EYE_OUTER_LEFT]))
    low = np.clip(np.floor(points.min(axis=0) - margin), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0) + margin), 0, (width, height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def outside(box: Box, width: int, height: int) -> NDArray[np.bool_]:
    """Return where a frame [height, width] is not in the box."""
    x, y, box_width, box_height = box
    area = np.ones((height, width), np.bool_)
    area[y : y + box_height, x : x + box_width] = False
    return area


class Difference:
    """Differences of pairs of pictures, uint8 RGB of one shape a pair.

    Means are over all pixels of all pairs; SSIM is the mean over pairs, of luma, NaN without scikit-image.
    """

    def __init__(self, *, with_ssim: bool = True) -> None:
        self._with_ssim = with_ssim and find_spec(SSIM_NEEDS) is not None
        self._count = 0
        self._absolute = self._squared = 0.0
        self._ssim: list[float] = []
        self.max = 0

    def add(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        """Take one pair."""
        if not first.size:
            return
        apart = cv2.absdiff(first, second)
        self._count += apart.size
        self._absolute += float(apart.sum(dtype=np.float64))
        self._squared += float(np.square(apart, dtype=np.float64).sum())
        self.max = max(self.max, int(apart.max()))
        if self._with_ssim and min(first.shape[:2]) >= _SSIM_WINDOW:
            self._ssim.append(_ssim(first, second))

    @property
    def mean(self) -> float:
        """Mean absolute difference, 0…255; NaN where nothing was added."""
        return self._absolute / self._count if self._count else math.nan

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio, dB; infinite where nothing differs, NaN where nothing was added."""
        if not self._count:
            return math.nan
        error = self._squared / self._count
        return 10 * math.log10(255**2 / error) if error else math.inf

    @property
    def ssim(self) -> float:
        """Mean structural similarity, up to 1."""
        return float(np.mean(self._ssim)) if self._ssim else math.nan

    def figures(self, prefix: str) -> dict[str, float]:
        """Return all of it by name."""
        named = {"max": float(self.max), "mean": self.mean, "psnr": self.psnr, "ssim": self.ssim}
        return {f"{prefix}{name}": value for name, value in named.items()}


class Seam:
    """The gradient along the edge of what was changed in a face, against the source's own gradient there.

    No mask is needed, so any tool's output can be measured: what was changed is where the two differ by more than
    encoding does.
    """

    def __init__(self) -> None:
        self._gradient = np.zeros(2)

    def add(self, output: NDArray[np.uint8], base: NDArray[np.uint8]) -> None:
        """Take one face of the output and of the frame it was made from, RGB of one shape."""
        if not base.size:
            return
        grey = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32) for picture in (output, base)]
        apart = cv2.GaussianBlur(np.abs(grey[0] - grey[1]), (0, 0), _SMOOTH_PX)
        changed = (apart > _CHANGED).astype(np.uint8)
        # Islands inside the mouth are no edge: the outline of the whole changed area is.
        contours, _ = cv2.findContours(changed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not contours:
            return
        outline = np.zeros_like(changed)
        cv2.drawContours(outline, [max(contours, key=cv2.contourArea)], -1, 1, _EDGE_PX)
        edge = outline.astype(np.bool_)
        if edge.sum() < _FEWEST_EDGE:
            return
        self._gradient += [float(_gradient(picture)[edge].sum()) for picture in grey]

    @property
    def ratio(self) -> float:
        """Output over source, 1 is as the source; NaN where nothing was changed."""
        return float(self._gradient[0] / self._gradient[1]) if self._gradient[1] > 0 else math.nan


def _gradient(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)), np.float32)


def _ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    similarity: Any = import_module("skimage.metrics").structural_similarity  # an extra, and without types
    luma = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    return float(similarity(*luma, data_range=255))
