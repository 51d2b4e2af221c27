"""How a stored picture is turned and mirrored to be shown: a file's display matrix, a photo's EXIF orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_ONE: Final = 1 << 16  # display matrices are 16.16 fixed point, the last column 2.30 (libavutil/display.h)
_UNIT: Final = 1 << 30


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
    def of(cls, frame: VideoFrame) -> Orientation:
        """Read a decoded frame's display matrix; an angle between quarter turns is taken for the nearest one."""
        try:
            # PyAV's stub says the keys are iterated; its SideDataContainer iterates the values.
            sides = list(cast(Iterable[SideData], frame.side_data))
        except ValueError:
            # PyAV 18.1 refuses all side data where FFmpeg's enum has a member its own lacks, as EXIF in a photo; the
            # angle it still tells. Mirroring is lost: phones and cameras do not write it.
            return _QUARTERS[round(frame.rotation / 90) % 4]
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
_QUARTERS: Final = (AS_STORED, Orientation(0, -1, 1, 0), Orientation(-1, 0, 0, -1), Orientation(0, 1, -1, 0))
