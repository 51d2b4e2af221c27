"""What the backends that paste LatentSync's crops back have in common: options, geometry, boxes in the frame.

Affines map (x, y) of the frame, or of a box in it, to (x, y) of an image, pixel centres at whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_compositor.detail import Finish
from lipsync_compositor.feather import Box

# latentsync/utils/affine_transform.py of the reference (FACTS §6, §7).
# Its crop is 75r × 100r px, r = 2.8 × resolution / 256, before it is stretched to a square.
CROP_WIDTH, CROP_HEIGHT = 75, 100
CROP_UNIT: Final = 2.8 / 256
BORDER: Final = 127.0 / 2 + 0.5  # what lies outside the crop: 127 in an image of −1…1, which saturates to white
EDGE_PARTS: Final = 20  # the soft edge is the side of a square of the crop's area in the frame, divided by this
SAMPLED: Final = 5  # px of the coarser grid beyond one that is shown: 2 + 2 by cubics, 1 for rounded sizes
MARGIN: Final = 2  # px around the warped crop: sampling reaches one, erosion and blur one more


class PasteOptions(BaseModel):
    """Options of every backend that pastes LatentSync's crops back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: Literal["mask", "mouth", "crop"] = Field(
        default="mask",
        description="mask: only what was generated, softly, all else byte for byte; mouth: of that only what is around "
        "the mouth, so that cheeks and jaw are the source's; crop: the whole crop, as LatentSync does",
    )
    feather_eye_distances: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05,
        description="not with crop: width of the soft edge, inwards, in distances between the outer eye corners",
    )
    sharpen: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.0, description="not with crop: strength of an unsharp mask on the generated face"
    )
    grain: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="not with crop: share of the fine detail lacking beside the source's that grain makes up for",
    )
    light: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="not with crop: share of the difference in light at the mask's edge that is taken away",
    )

    colour: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="not with crop: share of the difference in colours to the source that is taken away",
    )

    @property
    def finish(self) -> Finish:
        """What a face of low resolution is given."""
        return Finish(self.sharpen, self.grain, self.light, self.colour)


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of one size in n frames: `corners` int64 [n, 2] (x, y), `width` and `height` in px."""

    corners: NDArray[np.int64]
    width: int
    height: int

    def cut(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return copies [n, height, width, 3] of the boxes in frames [n, H, W, 3]."""
        return np.stack([self.view(frame, row) for row, frame in enumerate(frames)])

    def view(self, frame: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
        """Return box `row` as a view of its frame."""
        x, y = self.corners[row]
        return frame[y : y + self.height, x : x + self.width]

    def affines(self, frame_to_image: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the affines [n, 2, 3] from the boxes to the images, given those from the frames."""
        moved = frame_to_image.copy()
        moved[..., 2] += np.einsum("nij,nj->ni", frame_to_image[..., :2], self.corners)
        return moved


def scale_of(frame_to_crop: NDArray[np.float64]) -> float:
    """Return the frame's pixels a crop pixel, of an affine [2, 3]."""
    return float(np.sqrt(1 / abs(np.linalg.det(frame_to_crop[:, :2]))))


def crop_rectangle(resolution: int) -> tuple[int, int]:
    """Return width and height in px of the upright crop that was stretched to a square of `resolution` px."""
    unit = CROP_UNIT * resolution
    return int(CROP_WIDTH * unit), int(CROP_HEIGHT * unit)


def part_of_crop(held: Box, frame_to_crop: NDArray[np.float64], side: int) -> tuple[Box, tuple[int, int]]:
    """Return the part of a crop of `side` px that the pixels of `held` are made of, and the size to sample it at.

    The size (width, height, px) is about what the part has in the frames: resizing to it averages where the frame is
    coarser than the crop. Where it is finer the crop's own pixels stay. The resizing and the bicubic sampling after it
    each reach two pixels of the coarser grid, so what lies beyond the part does not show within `held`.
    """
    inverse = np.linalg.inv(frame_to_crop[:, :, :2])
    across, down = np.linalg.norm(inverse, axis=1).mean(axis=0)  # frame px a crop px, along x and y of the crop
    (rows, height), (columns, width) = (
        _widened(place, side, min(1.0, scale)) for place, scale in zip(held, (down, across), strict=True)
    )
    return (rows, columns), (width, height)


def _widened(place: slice, side: int, scale: float) -> tuple[slice, int]:
    margin = math.ceil(SAMPLED / scale)
    part = slice(max(0, place.start - margin), min(side, place.stop + margin))
    return part, max(1, round((part.stop - part.start) * scale))


def rescaled(
    frame_to_image: NDArray[np.float64], source: tuple[int, int], target: tuple[int, int]
) -> NDArray[np.float64]:
    """Return affines [n, 2, 3] to a picture resized to `target` (width, height, px) from those to it at `source`."""
    ratio = np.array(target) / source
    mapped: NDArray[np.float64] = frame_to_image * ratio[:, None]
    mapped[..., 2] += (ratio - 1) / 2  # x' = (x + ½)·ratio − ½
    return mapped


def moved(frame_to_image: NDArray[np.float64], part: Box) -> NDArray[np.float64]:
    """Return affines [n, 2, 3] to a part (rows, columns) of the image from those to the image."""
    rows, columns = part
    shifted = frame_to_image.copy()
    shifted[..., 2] -= (columns.start, rows.start)
    return shifted


def reach_of(width: int, height: int) -> tuple[float, float, float, float]:
    """Return the area (left, top, right, bottom) that a picture of that size shows when sampled bilinearly.

    It fades out to one of its pixels beyond the outermost centres, which is several of the frame where it is enlarged.
    """
    return -0.5, -0.5, width + 0.5, height + 0.5


def boxes_around(
    frame_to_image: NDArray[np.float64], area: tuple[float, float, float, float], frame_size: tuple[int, int]
) -> Boxes | None:
    """Return boxes of one size that hold `area` (left, top, right, bottom, px of the image) of each frame, or None.

    frame_size: (W, H) px. A box that would leave the frame is moved inside; None where no area touches its frame.
    """
    left, top, right, bottom = area
    corners = np.array([(x, y) for x in (left, right) for y in (top, bottom)]) - 0.5
    inverse = np.linalg.inv(frame_to_image[:, :, :2])
    placed = np.einsum("nij,nkj->nki", inverse, corners - frame_to_image[:, None, :, 2])
    low = np.floor(placed.min(axis=1)).astype(np.int64) - MARGIN
    high = np.ceil(placed.max(axis=1)).astype(np.int64) + MARGIN + 1
    size = np.array(frame_size)
    if ((high <= 0) | (low >= size)).any(axis=1).all():
        return None
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    width, height = (int(v) for v in (high - low).max(axis=0))
    return Boxes(np.minimum(low, size - (width, height)), width, height)
