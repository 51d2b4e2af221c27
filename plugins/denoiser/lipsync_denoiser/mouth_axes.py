"""Coordinates along and across a mouth, whatever way the head is tilted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

# rows of the eight inner lip points, from the corner on the image's left to the other
UPPER_EDGE: Final = (0, 1, 2, 3, 4)
LOWER_EDGE: Final = (0, 7, 6, 5, 4)


@dataclass(frozen=True, slots=True)
class MouthAxes:
    """Origin [2] between the mouth corners; unit vectors `along` [2], to the image's right, and `down` [2]."""

    origin: Floats
    along: Floats
    down: Floats

    @classmethod
    def of(cls, inner: Floats) -> MouthAxes:
        """Return the axes of an inner lip [8, 2]."""
        across = inner[4] - inner[0]
        along = across / max(float(np.linalg.norm(across)), 1e-9)
        return cls((inner[0] + inner[4]) / 2, along, np.array([-along[1], along[0]]))

    def of_points(self, points: Floats) -> Floats:
        """Return (along, down) of points [k, 2]."""
        return (points - self.origin) @ np.stack([self.along, self.down], axis=1)

    def of_pixels(self, corner: tuple[int, int], size: tuple[int, int]) -> tuple[Floats32, Floats32]:
        """Return along and down, each [height, width], of the pixels of a box at `corner` (x, y)."""
        x = np.arange(size[0], dtype=np.float32) + np.float32(corner[0] - self.origin[0])
        y = (np.arange(size[1], dtype=np.float32) + np.float32(corner[1] - self.origin[1]))[:, None]
        along, down = self.along.astype(np.float32), self.down.astype(np.float32)
        return x * along[0] + y * along[1], x * down[0] + y * down[1]

    def edge(self, inner: Floats, order: tuple[int, ...], along: Floats32) -> Floats32:
        """Return how far down a lip's inner edge is at each place along; level beyond the corners."""
        points = self.of_points(inner[list(order)])
        places = np.maximum.accumulate(points[:, 0])
        out: Floats32 = np.interp(along, places, points[:, 1]).astype(np.float32)
        return out
