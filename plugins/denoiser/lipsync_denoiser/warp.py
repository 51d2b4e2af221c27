"""Thin-plate warps (Duchon, 1977; Bookstein, 1989) between landmark sets, on a coarse grid."""

from __future__ import annotations

from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]
_Float = TypeVar("_Float", np.float32, np.float64)

_STIFFNESS: Final = 1e-4  # added to the kernel's diagonal at unit spacing: points that all but coincide cannot fold it


def thin_plate(
    wanted: NDArray[np.float64], source: NDArray[np.float64], x: Floats32, y: Floats32, unit: float
) -> Floats32:
    """Return where to sample a picture at the grid points, as displacements float32 [len(y), len(x), 2], px.

    wanted: [k, 2] px, where the control points are to be; source: [k, 2] px, where they are in the picture.
    x, y: the grid's columns and rows, px. unit: length over which the landmarks spread, px. The radial kernel is
    r² log r².
    """
    k = len(wanted)
    centre = wanted.mean(axis=0)
    control = (wanted - centre) / unit
    system = np.zeros((k + 3, k + 3))
    system[:k, :k] = _kernel(((control[:, None] - control[None]) ** 2).sum(axis=2))
    system[:k, :k] += _STIFFNESS * np.eye(k)
    system[:k, k] = system[k, :k] = 1.0
    system[:k, k + 1 :] = control
    system[k + 1 :, :k] = control.T
    moved = np.zeros((k + 3, 2))
    moved[:k] = source - wanted
    weights = np.linalg.solve(system, moved).astype(np.float32)

    gx = (x - np.float32(centre[0])) / np.float32(unit)
    gy = (y - np.float32(centre[1])) / np.float32(unit)
    spots = control.astype(np.float32)
    squared = ((gy[:, None] - spots[:, 1]) ** 2)[:, None] + ((gx[:, None] - spots[:, 0]) ** 2)[None]
    values = (_kernel(squared.reshape(-1, k)) @ weights[:k]).reshape(len(y), len(x), 2)
    values += weights[k] + gx[None, :, None] * weights[k + 1] + gy[:, None, None] * weights[k + 2]
    return values


def grid(start: int, cells: int, step: int) -> Floats32:
    """Return the middles of `cells` cells of `step` px that begin at pixel `start`."""
    return (start + (np.arange(cells) + 0.5) * step - 0.5).astype(np.float32)


def sample(picture: NDArray[np.uint8], displacement: Floats32, corner: tuple[int, int], step: int) -> NDArray[np.uint8]:
    """Return the picture seen through a displacement field, in one cubic interpolation: [gh * step, gw * step, 3].

    displacement: [gh, gw, 2] px, at the middles of cells of `step` px. corner: (x, y) of the output's first pixel in
    the picture, whose edge pixels repeat outside.
    """
    height, width = displacement.shape[0] * step, displacement.shape[1] * step
    field = np.asarray(cv2.resize(displacement, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    field[..., 0] += np.arange(corner[0], corner[0] + width, dtype=np.float32)
    field[..., 1] += np.arange(corner[1], corner[1] + height, dtype=np.float32)[:, None]
    nothing = np.empty(0, np.float32)  # OpenCV's sign that `field` holds both coordinates
    seen = cv2.remap(picture, field, nothing, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.uint8)


def _kernel(squared: NDArray[_Float]) -> NDArray[_Float]:
    """Return r² log r², 0 at r = 0."""
    values: NDArray[_Float] = squared * np.log(np.maximum(squared, 1e-12))
    return values
