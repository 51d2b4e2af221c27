"""The pieces of LatentSync's paste-back on a torch device, inside the bounding box of the warped crop only.

Formulas: latentsync/utils/affine_transform.py of the reference. Images are float32 [n, channels, H, W], 0…1; affines
as in `paste`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lipsync_compositor.paste import EDGE_PARTS, Boxes


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
