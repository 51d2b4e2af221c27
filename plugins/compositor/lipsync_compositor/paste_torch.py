"""The pieces of LatentSync's paste-back on a torch device, inside the bounding box of the warped crop only.

Formulas: latentsync/utils/affine_transform.py of the reference. Images are float32 [n, channels, H, W], 0…1; affines
map (x, y) of the frame or of a box in it to (x, y) of an image, pixel centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# LatentSync's crop is 75r × 100r px, r = 2.8 × resolution / 256, before it is stretched to a square.
CROP_WIDTH, CROP_HEIGHT = 75, 100
CROP_UNIT: Final = 2.8 / 256
BORDER: Final = 127.0 / 2 + 0.5  # what lies outside the crop: 127 in an image of −1…1, which saturates to white
EDGE_PARTS: Final = 20  # the soft edge is the side of a square of the crop's area in the frame, divided by this
MARGIN: Final = 2  # px around the warped crop: sampling reaches one, erosion and blur one more


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


def crop_rectangle(resolution: int) -> tuple[int, int]:
    """Return width and height in px of the upright crop that was stretched to a square of `resolution` px."""
    unit = CROP_UNIT * resolution
    return int(CROP_WIDTH * unit), int(CROP_HEIGHT * unit)


def rescaled(frame_to_crop: NDArray[np.float64], side: int, width: float, height: float) -> NDArray[np.float64]:
    """Return affines [n, 2, 3] to a picture of `width` × `height` px from those to the square of `side` px."""
    ratio = np.array([width / side, height / side])
    mapped: NDArray[np.float64] = frame_to_crop * ratio[:, None]
    mapped[..., 2] += (ratio - 1) / 2  # x' = (x + ½)·ratio − ½
    return mapped


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


def warp(
    image: Tensor,
    box_to_image: NDArray[np.float64],
    box: Boxes,
    mode: Literal["bilinear", "bicubic"],
    border: float | None,
) -> tuple[Tensor, Tensor]:
    """Sample an image [n, c, h, w] at the pixels of each box; affines [n, 2, 3] map box (x, y) to image (x, y).

    border: the value outside the image, blended in linearly over one pixel; None repeats the image's edge.
    Returns the samples [n, c, H, W], and how much of each the image covers, 0…1 [n, H, W].
    """
    height, width = image.shape[-2:]
    x = torch.arange(box.width, device=image.device, dtype=torch.float32)
    y = torch.arange(box.height, device=image.device, dtype=torch.float32)[:, None]
    m = torch.from_numpy(box_to_image.astype(np.float32)).to(image.device)[..., None, None]
    columns, rows = (m[:, axis, 0] * x + m[:, axis, 1] * y + m[:, axis, 2] for axis in (0, 1))
    # −1…1 from the first pixel's centre to the last one's (align_corners)
    grid = torch.stack([columns * (2 / max(width - 1, 1)) - 1, rows * (2 / max(height - 1, 1)) - 1], dim=-1)
    padding = "border" if border is None else "zeros"
    sampled = functional.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=True)
    covered = _covered(columns, width) * _covered(rows, height)
    return (sampled + (1 - covered[:, None]) * border if border else sampled), covered


def _covered(place: Tensor, length: int) -> Tensor:
    """Return what bilinear sampling of ones gives at `place` along one axis, with zeros outside 0…length − 1."""
    return torch.minimum(place + 1, length - place).clamp(0, 1)


def soft_mask(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eroded crop and the soft mask, both [n, h, w], of the warped crop's area [n, h, w] in 0…1.

    Outside the box there must be nothing of the crop but what lies outside the frame.
    """
    eroded = _running_minimum(_running_minimum(inside, 1, 0, 1), 1, 0, 2)
    edges = (eroded.sum(dim=(1, 2)).sqrt().long() // EDGE_PARTS).tolist()
    soft = eroded.clone()
    for edge in set(edges) - {0}:  # a face of under 400 px of area is too small for a soft edge
        rows = [row for row, own in enumerate(edges) if own == edge]
        centre = _running_minimum(_running_minimum(eroded[rows], edge, edge - 1, 1), edge, edge - 1, 2)
        soft[rows] = _blurred(centre, edge)
    return eroded, soft


def _running_minimum(values: Tensor, before: int, after: int, dim: int) -> Tensor:
    """Return the minimum over `before` pixels before to `after` pixels after each one; what is outside is ignored."""
    size, length = before + 1 + after, values.shape[dim]
    pad = [0, 0, 0, 0]
    pad[2 * (2 - dim) : 2 * (2 - dim) + 2] = before, after
    window = functional.pad(values, pad, value=torch.inf)
    span = 1  # `window` holds the minimum of so many pixels; it doubles until the next doubling would be too many
    while span < size:
        step = min(span, size - span)
        rest = window.shape[dim] - step
        window = torch.minimum(window.narrow(dim, 0, rest), window.narrow(dim, step, rest))
        span += step
    return window.narrow(dim, 0, length)


def _blurred(values: Tensor, radius: int) -> Tensor:
    """Blur [n, h, w] by a Gaussian of 2·radius + 1 taps, the border reflected, as OpenCV chooses its sigma."""
    sigma = 0.3 * (radius - 1) + 0.8
    taps = torch.exp(
        -(torch.arange(-radius, radius + 1, device=values.device, dtype=torch.float32) ** 2) / (2 * sigma**2)
    )
    taps = taps / taps.sum()
    for dim in (1, 2):
        values = torch.tensordot(values, _reflected(taps, values.shape[dim]), dims=([dim], [0]))
        values = values.movedim(-1, dim)
    return values


def _reflected(taps: Tensor, length: int) -> Tensor:
    """Return the matrix [length, length] whose column i weighs the pixels around i, reflected at both ends."""
    radius = len(taps) // 2
    out = torch.arange(length, device=taps.device)
    source = out[:, None] + torch.arange(-radius, radius + 1, device=taps.device)
    period = max(2 * (length - 1), 1)
    source = source.remainder(period)
    source = torch.minimum(source, period - source).clamp(0, length - 1)
    matrix = torch.zeros((length, length), device=taps.device)
    matrix.scatter_add_(1, source, taps.expand(length, -1))
    return matrix.T
