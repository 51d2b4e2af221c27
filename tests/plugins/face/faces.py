"""A face made of numbers, for tests that need no picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def face_points(opening: float = 0.0, at: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float64]:
    """Return 68 points [68, 2] of an upright face, about 100 px from brow to chin; `opening` px between the lips.

    at: where the middle between the eyes lies.
    """
    jaw_angle = np.linspace(np.pi, 0, 17)
    jaw = np.column_stack([50 * np.cos(jaw_angle), 10 + (60 + opening) * np.sin(jaw_angle)])
    brow = np.column_stack([np.linspace(-8, 8, 5), [0, -3, -4, -3, 0]])
    eye = np.column_stack([[-8, -3, 3, 8, 3, -3], [0, -3, -3, 0, 3, 3]])
    bridge = np.column_stack([np.zeros(4), np.linspace(-2, 22, 4)])
    base = np.column_stack([np.linspace(-8, 8, 5), [28, 29, 30, 29, 28]])
    angle = np.linspace(np.pi, 3 * np.pi, 13)[:12]
    outer = np.column_stack([18 * np.cos(angle), 46 + opening / 2 + (7 + opening / 2) * np.sin(angle)])
    inner_angle = np.linspace(np.pi, 3 * np.pi, 9)[:8]
    inner = np.column_stack([14 * np.cos(inner_angle), 46 + opening / 2 + opening / 2 * np.sin(inner_angle)])
    side, up = np.array([22, 0]), np.array([0, -18])
    parts = [jaw, brow - side + up, brow + side + up, bridge, base, eye - side, eye + side, outer, inner]
    return np.concatenate(parts) + np.array(at)
