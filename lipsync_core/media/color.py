"""Colour between a file's YUV and the stages' RGB: which matrix, which range, and the conversion itself.

swscale converts; the flags below make it agree with the formulas of ITU-R BT.601/709/2020. Measured on a 1080×1920
clip: YUV → RGB → YUV returns luma exactly and chroma within 0.01 of 255 on average, where swscale's default flags
darken luma by one step.

With these flags swscale makes planes in half the time of packed pixels, so YUV goes to planes and OpenCV interleaves
them: the same pixels in 8 instead of 16 ms a frame. (Where the size is no multiple of the chroma's step, one pixel in
a thousand is one level off.)

Band by band, so that planes are small enough to stay in the cache and in memory that is used again: those of a whole
1080×1920 picture are 1,531 fresh pages each time, and asking the system for them took longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from lipsync_core.media.orientation import AS_STORED, Orientation

_FLAGS: Final = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_HD_HEIGHT: Final = 720
"""Lines from which an untagged picture is taken for BT.709, as players do; below, BT.601."""

_BAND_BYTES: Final = 640_000
"""RGB of a band; 1080×1920, CPU ms a picture: 160 kB 6.6, 310 kB 5.7, 620 kB 5.2, 830 kB 5.1, all at once 8.4."""
_ROWS: Final = 4
"""Bands begin at whole multiples of so many rows: where chroma does, of any subsampling."""
_MARGIN: Final = 4
"""Rows above and below a band that are converted with it: bilinear chroma looks at one of its own rows, two of luma."""
_BANDED: Final = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le"})
"""Formats the tests hold equal to the whole picture's; others are converted whole."""


class Matrix(IntEnum):
    """`AVColorSpace` numbers (ITU-T H.273 MatrixCoefficients) this module meets by name."""

    RGB = 0
    BT709 = 1
    UNSPECIFIED = 2
    BT470BG = 5
    SMPTE170M = 6


_SWS_MATRIX: Final = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""`AVColorSpace` → `SWS_CS_*`, for the matrices swscale knows (libswscale/swscale.h)."""

LIMITED: Final = 1
FULL: Final = 2


@dataclass(frozen=True, slots=True)
class ColorTags:
    """Colour tags as FFmpeg numbers them (ITU-T H.273; 2 is unspecified; range 0 unspecified, 1 limited, 2 full)."""

    range: int = 0
    space: int = int(Matrix.UNSPECIFIED)
    primaries: int = 2
    trc: int = 2

    def sws_matrix(self, height: int) -> int:
        """Return swscale's number of the matrix to convert with; `height` (px) decides where there is no tag."""
        guess = Matrix.BT709 if height >= _HD_HEIGHT else Matrix.SMPTE170M
        return _SWS_MATRIX.get(self.space, _SWS_MATRIX[guess])

    @property
    def sws_range(self) -> int:
        """Return 1 for limited range, 2 for full; untagged YUV is limited."""
        return FULL if self.range == FULL else LIMITED

    def for_encoding(self, height: int) -> ColorTags:
        """Return the tags of YUV written from these pictures; that of RGB is replaced.

        An RGB source (GIF, PNG, screen recordings) becomes limited-range YUV.
        """
        # A matrix that swscale lacks is guessed both ways, which gives the stored values: the tag still fits.
        if self.space != Matrix.RGB:
            return self
        space = Matrix.BT709 if height >= _HD_HEIGHT else Matrix.SMPTE170M
        return ColorTags(LIMITED, int(space), self.primaries, self.trc)


UNTAGGED: Final = ColorTags()


class RgbConverter:
    """Decoded frames to upright RGB of one size. Not thread-safe: one for each reading thread.

    `height` of the stored picture decides the matrix of untagged video.
    """

    def __init__(self, tags: ColorTags, orientation: Orientation, width: int, height: int) -> None:
        self._reformatter = VideoReformatter()
        self._tags = tags
        self._orientation = orientation
        self._size = (width, height)
        self._band: VideoFrame | None = None
        # One for each height: swscale sets up anew where it changes.
        self._band_reformatter = VideoReformatter()

    def into(self, frame: VideoFrame, out: NDArray[np.uint8]) -> None:
        """Convert into `out` uint8 [H, W, 3], H and W as shown."""
        width, height = self._size
        if frame.format.is_rgb:
            rgb = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=_FLAGS, threads=1)
            out[...] = self._orientation.upright(np.asarray(rgb.to_ndarray(), dtype=np.uint8))
            return
        direct = self._orientation == AS_STORED and out.flags.c_contiguous
        stored = out if direct else np.empty((height, width, 3), np.uint8)
        if self._has_bands(frame):
            for top, shown, band in self._bands(frame):
                self._merge(
                    self._band_reformatter, band, band.height, shown, stored[top + shown.start : top + shown.stop]
                )
        else:
            self._merge(self._reformatter, frame, height, slice(0, height), stored)
        if not direct:
            out[...] = self._orientation.upright(stored)

    def _merge(
        self, reformatter: VideoReformatter, frame: VideoFrame, height: int, rows: slice, out: NDArray[np.uint8]
    ) -> None:
        """Convert a picture or a band, `height` rows in the end, and write `rows` of it into `out`."""
        width = self._size[0]
        planes = reformatter.reformat(
            frame,
            width,
            height,
            "gbrp",
            src_colorspace=self._tags.sws_matrix(self._size[1]),
            src_color_range=self._tags.sws_range,
            interpolation=_FLAGS,
            threads=1,
        ).planes
        green, blue, red = (_rows(plane)[rows, :width] for plane in planes)
        cv2.merge([red, green, blue], out)

    @property
    def _band_height(self) -> int:
        rows = _BAND_BYTES // (3 * self._size[0]) // _ROWS * _ROWS
        return max(rows, _ROWS) + 2 * _MARGIN

    def _has_bands(self, frame: VideoFrame) -> bool:
        return (
            frame.format.name in _BANDED
            and (frame.width, frame.height) == self._size
            and frame.height % _ROWS == 0
            and frame.height > self._band_height
            and not frame.interlaced_frame  # swscale takes the half-pictures apart
        )

    def _bands(self, frame: VideoFrame) -> Iterator[tuple[int, slice, VideoFrame]]:
        """Yield each band's first row in the picture, which of its own rows count, and the band (one frame, reused)."""
        if self._band is None or self._band.format.name != frame.format.name:
            # Made from a picture, as nothing else takes over where its chroma lies.
            self._band = VideoReformatter().reformat(frame, frame.width, self._band_height, frame.format.name)
        band, height = self._band, frame.height
        for start in range(0, height, band.height - 2 * _MARGIN):
            stop = min(start + band.height - 2 * _MARGIN, height)
            top = min(max(start - _MARGIN, 0), height - band.height)
            for ours, theirs in zip(band.planes, frame.planes, strict=True):
                rows, first = _rows(ours), top * theirs.height // height
                bytes_a_row = min(ours.line_size, theirs.line_size)
                rows[:, :bytes_a_row] = _rows(theirs)[first : first + len(rows), :bytes_a_row]
            yield top, slice(start - top, stop - top), band

    def rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert to a new array uint8 [H, W, 3]."""
        width, height = self._orientation.turned(*self._size)
        out = np.empty((height, width, 3), np.uint8)
        self.into(frame, out)
        return out


class YuvConverter:
    """Upright RGB to frames for the encoder, the inverse of `RgbConverter`."""

    def __init__(self, tags: ColorTags, orientation: Orientation, pix_fmt: str) -> None:
        self._reformatter = VideoReformatter()
        self._tags = tags
        self._orientation = orientation
        self._pix_fmt = pix_fmt

    def frame(self, pixels: NDArray[np.uint8]) -> VideoFrame:
        """Convert one picture uint8 [H, W, 3] to a frame in stored orientation."""
        stored = np.ascontiguousarray(self._orientation.stored(pixels))
        rgb = VideoFrame.from_numpy_buffer(stored, "rgb24")
        frame = self._reformatter.reformat(
            rgb,
            format=self._pix_fmt,
            dst_colorspace=self._tags.sws_matrix(stored.shape[0]),
            dst_color_range=self._tags.sws_range,
            interpolation=_FLAGS,
            threads=1,
        )
        for plane in frame.planes:
            _fill_padding(plane)
        return frame


def _fill_padding(plane: VideoPlane) -> None:
    """Repeat the last column over the unused end of each row, which holds whatever was in that memory before.

    x264 reads it where the width is no multiple of 16: the same frames gave other bytes from run to run.
    """
    rows = _rows(plane)
    rows[:, plane.width :] = rows[:, plane.width - 1 : plane.width]


def _rows(plane: VideoPlane) -> NDArray[np.uint8]:
    """Return the bytes of a plane, uint8 [height, line size]."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
