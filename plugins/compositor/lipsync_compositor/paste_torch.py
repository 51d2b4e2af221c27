"""The pieces of LatentSync's paste-back on a torch device, inside the bounding box of the warped crop only.

Formulas: latentsync/utils/affine_transform.py of the reference. Images are float32 [n, channels, H, W], 0…1; affines
as in `paste`.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lipsync_compositor.paste import EDGE_PARTS, Boxes

_BAND: Final = 64  # lines made by one product


def warp(
    image: Tensor, box_to_image: NDArray[np.float64], boxes: Boxes, mode: Literal["bilinear", "bicubic"], border: str
) -> Tensor:
    """Sample an image [n, c, h, w] at the pixels of each box, [n, c, H, W]; affines [n, 2, 3] map box to image (x, y).

    border: "zeros", blended in linearly over one pixel outside the image, or "border", which repeats its edge.
    """
    height, width = image.shape[-2:]
    # −1…1 from the first pixel's centre to the last one's (align_corners)
    ratio = np.array([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    normal = box_to_image * ratio[:, None]
    normal[..., 2] -= 1
    grid = torch.empty(len(image), boxes.height, boxes.width, 2, device=image.device)
    for axis, (along, down) in enumerate(_places(normal, boxes, image.device)):
        torch.add(along, down, out=grid[..., axis])
    return functional.grid_sample(image, grid, mode=mode, padding_mode=border, align_corners=True)


def area_of(size: tuple[int, int], box_to_image: NDArray[np.float64], boxes: Boxes, device: torch.device) -> Tensor:
    """Return how much of each pixel of the boxes an image of `size` (width, height) covers, 0…1 [n, H, W].

    It is what sampling an image of ones bilinearly gives, with zeros outside.
    """
    places = [along + down for along, down in _places(box_to_image, boxes, device)]
    x, y = (torch.minimum(at + 1, length - at).clamp_(0, 1) for length, at in zip(size, places, strict=True))
    return x.mul_(y)


def _places(affines: NDArray[np.float64], boxes: Boxes, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return, for x and y of the image, two parts whose sum is the place of each pixel: [n, 1, W] and [n, H, 1]."""
    m = torch.from_numpy(affines).to(torch.float32).to(device)[..., None, None]  # MPS has no float64
    x = torch.arange(boxes.width, device=device, dtype=torch.float32)
    y = torch.arange(boxes.height, device=device, dtype=torch.float32)[:, None]
    return [(m[:, axis, 0] * x + m[:, axis, 2], m[:, axis, 1] * y) for axis in (0, 1)]


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
        values = _blurred_along(values, taps, dim)
    return values


def _blurred_along(values: Tensor, taps: Tensor, dim: int) -> Tensor:
    """Blur by matrix products, a band of the matrix at a time: the rest of it is zeros."""
    length, radius = values.shape[dim], len(taps) // 2
    weights = _reflected(taps, length)
    out = torch.empty_like(values)
    for start in range(0, length, _BAND):
        size = min(_BAND, length - start)
        first, last = max(0, start - radius), min(length, start + size + radius)
        band, source = weights[first:last, start : start + size], values.narrow(dim, first, last - first)
        out.narrow(dim, start, size).copy_(band.T @ source if dim == 1 else source @ band)
    return out


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
