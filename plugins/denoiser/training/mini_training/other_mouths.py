"""The same face with its mouth in another state: a smile, parted lips, teeth. For references, so that none is believed.

Seven people who read sentences do not smile. A U-Net that has only seen their references takes a smile in one, teeth
between parted lips, for how the mouth shall be, whatever the sound says. Lips are moved and teeth painted crudely: it
is enough that what such a reference shows of the mouth has nothing to do with the mouth asked for.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm

# Lengths are in widths of the mouth.
SMILE_OUT, SMILE_UP = 0.17, 0.15  # of the corners, at most; a third as far the other way for pursed lips
UPPER, LOWER = 0.07, 0.30  # of the lips apart, at most
PARTED: Final = 0.7  # share of changed mouths whose lips are parted
TEETH = (0.05, 0.18)  # height of what shows of the upper teeth
TEETH_LIGHT = (0.9, 1.7)  # over that of the skin beside the mouth
GUMS: Final = (70.0, 30.0, 30.0)  # RGB, of a mouth's inside without teeth
_CORNER_REACH: Final = 0.28  # deviation of the corners' movement
_UPPER_REACH, _LOWER_REACH = 0.5, 0.9  # where the lips' movement ends, above and below
_SOFT: Final = 0.02  # blur of what is painted
_SIDE, _ABOVE, _BELOW = 0.8, 0.8, 1.1  # what is drawn anew, around the mouth


def other_mouth(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a picture [H, W, 3] with another mouth; landmarks [68, 2] in its pixels, the face about upright."""
    corners = landmarks[[lm.MOUTH_LEFT, lm.MOUTH_RIGHT]].astype(np.float64)
    width = float(corners[1, 0] - corners[0, 0])
    smile = rng.uniform(-1 / 3, 1.0)
    apart = rng.uniform(0.0, 1.0, 2) * (UPPER, LOWER) * width * (rng.random() < PARTED)
    teeth, light, inside = rng.uniform(*TEETH) * width, rng.uniform(*TEETH_LIGHT), rng.uniform(0.4, 1.4)
    side, above, below = _SIDE * width, _ABOVE * width, _BELOW * width
    left, top = np.maximum(corners.min(0) - np.array([side, above]), 0).astype(int)
    right, bottom = np.minimum(corners.max(0) + np.array([side, below]), picture.shape[1::-1]).astype(int)
    if width < 2 or right - left < 2 or bottom - top < 2:
        return picture
    x, y = np.meshgrid(np.arange(left, right, dtype=np.float64), np.arange(top, bottom, dtype=np.float64))

    moved = corners + smile * width * np.array([[-SMILE_OUT, -SMILE_UP], [SMILE_OUT, -SMILE_UP]])
    lips = landmarks[lm.INNER_LIP].astype(np.float64)
    lips = lips + pull(lips[:, 0], lips[:, 1], corners, moved - corners, width)
    upper = np.interp(x[0], lips[:5, 0], lips[:5, 1])
    lower = np.interp(x[0], lips[[0, 7, 6, 5, 4], 0], lips[[0, 7, 6, 5, 4], 1])
    lower = np.maximum(upper, lower)
    across = (x[0] - lips[0, 0]) / max(lips[4, 0] - lips[0, 0], 1.0) * 2 - 1
    bow = np.clip(1 - across**2, 0, None)
    edges = upper - apart[0] * bow, lower + apart[1] * bow
    # Where each pixel comes from: the movement of the lips undone, then that of the corners.
    up = np.clip(1 - (edges[0] - y) / (_UPPER_REACH * width), 0, 1) ** 2 * (y <= edges[0])
    down = np.clip(1 - (y - edges[1]) / (_LOWER_REACH * width), 0, 1) ** 2 * (y >= edges[1])
    from_y = y + apart[0] * bow * up - apart[1] * bow * down
    back = pull(x, from_y, moved, moved - corners, width)
    changed = cv2.remap(
        picture,
        (x - back[..., 0]).astype(np.float32),
        (from_y - back[..., 1]).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    if apart.any():
        skin = picture[top:bottom, left:right].reshape(-1, 3).mean(axis=0)
        edge = np.clip(teeth * bow - np.abs(y - edges[0]), 0, 1.5) / 1.5
        gaps = 1 - 0.15 * np.abs(np.cos(np.pi * (x - x.mean()) / (0.11 * width))) ** 8
        white = (0.3 * skin + 0.7 * skin.mean()) * light * (0.55 + 0.45 * bow)[None, :, None] * gaps[..., None]
        dark = np.array(GUMS) * inside
        paint = dark + (edge * (y >= edges[0]))[..., None] * (white - dark)
        hole = np.clip(np.minimum(y - edges[0], edges[1] - y) + 0.5, 0, 1) * (bow > 0)
        hole = cv2.GaussianBlur(hole, (0, 0), max(_SOFT * width, 0.5))[..., None]
        changed += hole * (paint - changed)
    result = picture.copy()
    result[top:bottom, left:right] = np.clip(np.rint(changed), 0, 255)
    return result


def pull(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    centres: NDArray[np.float64],
    by: NDArray[np.float64],
    width: float,
) -> NDArray[np.float64]:
    """Return the displacement [..., 2] at (x, y) of points pulled `by`, fading around them as a Gaussian."""
    total = np.zeros((*x.shape, 2))
    for centre, move in zip(centres, by, strict=True):
        distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        total += np.exp(-distance / (2 * (_CORNER_REACH * width) ** 2))[..., None] * move
    return total
