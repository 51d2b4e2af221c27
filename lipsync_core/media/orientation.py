"""How a stored picture is turned and mirrored to be shown: a file's display matrix, a photo's EXIF orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import cv2
import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_ONE: Final = 1 << 16  # display matrices are 16.16 fixed point, the last column 2.30 (libavutil/display.h)
_UNIT: Final = 1 << 30
_ORIENTATION_TAG: Final = 274


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to show a rectangle: (x, y) as stored is shown at (a·x + c·y, b·x + d·y).

    The four numbers are the display matrix's, each −1, 0 or 1. The default shows a picture as it is stored.
    """

    a: int = 1
    b: int = 0
    c: int = 0
    d: int = 1

    @classmethod
    def of(cls, frame: VideoFrame, path: Path) -> Orientation:
        """Read the display matrix of a file's decoded frame; an angle between quarter turns becomes the nearest one."""
        try:
            # PyAV's stub says the keys are iterated; its SideDataContainer iterates the values.
            sides = list(cast(Iterable[SideData], frame.side_data))
        except ValueError:
            # PyAV 18.1 refuses all side data where FFmpeg's enum has a member its own lacks, as EXIF in a photo. The
            # angle it still tells, but a mirrored picture's is that of a turned one.
            return _PHOTOS.get(_exif_orientation(path)) or _QUARTERS[round(frame.rotation / 90) % 4]
        for side in sides:
            if side.type == Type.DISPLAYMATRIX:
                a, b, _, c, d = struct.unpack("=9i", bytes(side))[:5]
                if abs(a) + abs(d) >= abs(b) + abs(c):
                    return cls(1 if a >= 0 else -1, 0, 0, 1 if d >= 0 else -1)
                return cls(0, 1 if b >= 0 else -1, 1 if c >= 0 else -1, 0)
        return AS_STORED

    @property
    def degrees(self) -> int:
        """Counterclockwise turn that shows the picture: 0, 90, 180 or 270 (mirrored first, if it is mirrored)."""
        if self.a:
            return 0 if self.a > 0 else 180
        return 90 if self.b < 0 else 270

    @property
    def matrix(self) -> tuple[int, ...]:
        """The nine integers of FFmpeg's display matrix."""
        return (self.a * _ONE, self.b * _ONE, 0, self.c * _ONE, self.d * _ONE, 0, 0, 0, _UNIT)

    def turned(self, width: int, height: int) -> tuple[int, int]:
        """Return the size as shown of a stored size, or the reverse."""
        return (width, height) if self.a else (height, width)

    def upright(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of stored pixels [H, W, 3] as they are shown."""
        if self.a:
            return stored[:: self.d, :: self.a]
        return stored.swapaxes(0, 1)[:: self.b, :: self.c]

    def stored(self, upright: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of upright pixels [H, W, 3] as they are stored: the inverse of `upright`."""
        if self.a:
            return upright[:: self.d, :: self.a]
        return upright[:: self.b, :: self.c].swapaxes(0, 1)


AS_STORED: Final = Orientation()
_PHOTOS: Final = {  # by the number EXIF gives them (Exif 3.0, tag 274)
    1: AS_STORED,
    2: Orientation(-1, 0, 0, 1),
    3: Orientation(-1, 0, 0, -1),
    4: Orientation(1, 0, 0, -1),
    5: Orientation(0, 1, 1, 0),
    6: Orientation(0, 1, -1, 0),
    7: Orientation(0, -1, -1, 0),
    8: Orientation(0, -1, 1, 0),
}
_QUARTERS: Final = (AS_STORED, Orientation(0, -1, 1, 0), Orientation(-1, 0, 0, -1), Orientation(0, 1, -1, 0))


def _exif_orientation(path: Path) -> int:
    """Return the orientation, 1…8, that a photo's EXIF gives; 0 where OpenCV finds none."""
    try:
        _, kinds, parts = cv2.imreadWithMetadata(str(path), flags=cv2.IMREAD_REDUCED_GRAYSCALE_8)
        exif = next(bytes(part) for kind, part in zip(kinds, parts, strict=True) if kind == cv2.IMAGE_METADATA_EXIF)
        tiff = exif.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        entries = (struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * k) for k in range(count))
        return next(int(value) for tag, _, _, value in entries if tag == _ORIENTATION_TAG)
    except (cv2.error, StopIteration, LookupError, ValueError, struct.error):
        return 0
