"""The eight numbers that describe a mouth, and moving landmarks so that they take wanted values.

In the head frame (`head.py`), unit: outer eye corners' distance; the order is that of the audio features:
inner opening at the middle, outer lip height, outer width, inner width, upper lip, lower lip and chin below the nose,
inner opening at the sides. Heights are along the head's y axis, widths along x, both signed, so that moving landmarks
to a shape and measuring them again gives the shape back.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lipsync_core import landmarks as lm
from lipsync_denoiser.head import Floats

COUNT: Final = 8
OPENING, HEIGHT, WIDTH, INNER_WIDTH, UPPER, LOWER, CHIN, SIDES = range(COUNT)

_UPPER_OUTER: Final = (49, 50, 51, 52, 53)
_LOWER_OUTER: Final = (55, 56, 57, 58, 59)
_UPPER_INNER: Final = (61, 62, 63)
_LOWER_INNER: Final = (65, 66, 67)
_LEFT_SIDE, _RIGHT_SIDE = (61, 67), (63, 65)  # upper, lower inner lip beside the middle
_JAW_REACH: Final = 6  # jaw points this many steps from the chin stay put: they sit before the ear, at the hinge
_MIN_LIP: Final = 0.02  # thinnest sum of both lips' heights, units: pressed lips on real faces measure .03 and more


def measure(head: Floats) -> Floats:
    """Return the shapes [n, 8] of landmarks [n, 68, 2] in the head frame."""
    x, y = head[..., 0], head[..., 1]
    nose = y[:, lm.NOSE_BOTTOM]
    sides = (y[:, _LEFT_SIDE[1]] - y[:, _LEFT_SIDE[0]] + y[:, _RIGHT_SIDE[1]] - y[:, _RIGHT_SIDE[0]]) / 2
    return np.stack(
        [
            y[:, lm.LOWER_LIP_INNER] - y[:, lm.UPPER_LIP_INNER],
            y[:, lm.LOWER_LIP_BOTTOM] - y[:, lm.UPPER_LIP_TOP],
            x[:, lm.MOUTH_RIGHT] - x[:, lm.MOUTH_LEFT],
            x[:, lm.INNER_RIGHT] - x[:, lm.INNER_LEFT],
            y[:, lm.UPPER_LIP_TOP] - nose,
            y[:, lm.LOWER_LIP_BOTTOM] - nose,
            y[:, lm.CHIN] - nose,
            sides,
        ],
        axis=1,
    )


def consistent(shape: Floats) -> Floats:
    """Return the nearest shapes [n, 8] a mouth can have.

    The outer height is the lower lip's place less the upper's, openings are not negative, the lips keep a thickness,
    and the sides open no wider than the middle.
    """
    out = shape.copy()
    out[:, OPENING] = np.maximum(out[:, OPENING], 0.0)
    excess = (out[:, HEIGHT] - (out[:, LOWER] - out[:, UPPER])) / 3.0
    out[:, UPPER] -= excess
    out[:, LOWER] += excess
    lacking = np.maximum(out[:, OPENING] + _MIN_LIP - (out[:, LOWER] - out[:, UPPER]), 0.0)
    out[:, LOWER] += lacking
    out[:, HEIGHT] = out[:, LOWER] - out[:, UPPER]
    out[:, SIDES] = np.clip(out[:, SIDES], 0.3 * out[:, OPENING], 1.1 * out[:, OPENING])
    return out


def move(head: Floats, shape: Floats) -> Floats:
    """Return landmarks [n, 68, 2] moved so that they measure `shape` [n, 8] (which `consistent` returned).

    The nose and the upper face stay; lips, chin and jaw go, each lip point by a share of its lip's middle and of the
    mouth corner, the share falling off as a parabola towards the corner.
    """
    out = head.copy()
    x, y = out[..., 0], out[..., 1]
    old_y = head[..., 1]
    nose = old_y[:, lm.NOSE_BOTTOM]
    upper_lip = old_y[:, lm.UPPER_LIP_INNER] - old_y[:, lm.UPPER_LIP_TOP]
    lower_lip = old_y[:, lm.LOWER_LIP_BOTTOM] - old_y[:, lm.LOWER_LIP_INNER]
    share = np.clip(upper_lip, 1e-3, None) / (np.clip(upper_lip, 1e-3, None) + np.clip(lower_lip, 1e-3, None))

    upper_out = nose + shape[:, UPPER]
    upper_in = upper_out + share * (shape[:, HEIGHT] - shape[:, OPENING])
    places = {
        _UPPER_OUTER: upper_out - old_y[:, lm.UPPER_LIP_TOP],
        _LOWER_OUTER: nose + shape[:, LOWER] - old_y[:, lm.LOWER_LIP_BOTTOM],
        _UPPER_INNER: upper_in - old_y[:, lm.UPPER_LIP_INNER],
        _LOWER_INNER: upper_in + shape[:, OPENING] - old_y[:, lm.LOWER_LIP_INNER],
    }
    corner = (places[_UPPER_INNER] + places[_LOWER_INNER]) / 2
    outer = (lm.MOUTH_LEFT, lm.MOUTH_RIGHT)
    inner = (lm.INNER_LEFT, lm.INNER_RIGHT)
    for ends, wanted, groups in (
        (outer, shape[:, WIDTH], (_UPPER_OUTER, _LOWER_OUTER)),
        (inner, shape[:, INNER_WIDTH], (_UPPER_INNER, _LOWER_INNER)),
    ):
        middle = (head[:, ends[0], 0] + head[:, ends[1], 0]) / 2
        half = np.maximum((head[:, ends[1], 0] - head[:, ends[0], 0]) / 2, 1e-3)
        for points in (ends, *groups):
            for k in points:
                reach = (head[:, k, 0] - middle) / half
                x[:, k] = middle + reach * wanted / 2
                if k in (lm.UPPER_LIP_TOP, lm.LOWER_LIP_BOTTOM, lm.UPPER_LIP_INNER, lm.LOWER_LIP_INNER):
                    weight = np.ones_like(reach)
                else:
                    weight = np.clip(1.0 - reach**2, 0.0, 1.0)
                y[:, k] += corner if points is ends else weight * places[points] + (1.0 - weight) * corner
    sides = (y[:, 67] - y[:, 61] + y[:, 65] - y[:, 63]) / 2
    lack = (shape[:, SIDES] - sides) / 2
    for top, bottom in (_LEFT_SIDE, _RIGHT_SIDE):
        y[:, top] -= lack
        y[:, bottom] += lack

    drop = nose + shape[:, CHIN] - old_y[:, lm.CHIN]
    for k in range(lm.JAW.start, lm.JAW.stop):
        away = abs(k - lm.CHIN) / _JAW_REACH
        if away < 1:
            y[:, k] += np.cos(np.pi / 2 * away) ** 2 * drop
    return out


def corner_lift(head: Floats) -> Floats:
    """Return how far the mouth corners [n] are above the middle between the lips; head: [n, 68, 2]."""
    y = head[..., 1]
    lift: Floats = (
        y[:, lm.UPPER_LIP_INNER] + y[:, lm.LOWER_LIP_INNER] - y[:, lm.MOUTH_LEFT] - y[:, lm.MOUTH_RIGHT]
    ) / 2
    return lift


def smile(shapes: Floats, lift: Floats) -> Floats:
    """Return how much each mouth [n] smiles, in standard deviations of the clip.

    shapes: [n, 8]; lift: [n], as `corner_lift`. A smile is wide and has its corners up, beyond what its opening brings
    with it (a straight line's residual, each).
    """
    signs = []
    for values in (shapes[:, WIDTH], lift):
        line = np.stack([np.ones(len(shapes)), shapes[:, OPENING]], axis=1)
        rest = values - line @ np.linalg.lstsq(line, values, rcond=None)[0]
        signs.append(rest / max(float(rest.std()), 1e-6))
    both: Floats = (signs[0] + signs[1]) / 2
    return both
