"""The inside of a mouth that the source never opens: a still picture, or a speaker who hardly moves.

The lips are warped apart, and what shows between them is painted: the upper teeth, which belong to the skull, stay
where they are (the source's own pixels, unwarped, where it shows any; drawn where its mouth is closed), and below them
it is dark, with a hint of tongue.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_denoiser.mouth_axes import LOWER_EDGE, UPPER_EDGE, Floats, Floats32, MouthAxes

CLOSED: Final = 0.03  # units of inner opening below which a mouth shows nothing of its inside

_SPLINE: Final = 6  # points drawn for each landmark of the inner lip
_EDGE: Final = 0.014  # units over which the painted inside meets the lips
_SHOWN_TEETH: Final = 0.045  # units of the upper incisors below a closed lip line: 4 mm of an 89 mm eye distance
_TOOTH_WIDTH: Final = 0.085  # units; an upper incisor is about 7.5 mm wide
_TEETH_REACH: Final = 0.80  # of the half width of the mouth over which teeth are seen
_DARK: Final = np.array([0.16, 0.11, 0.10], np.float32)  # of the lips' colour, in the depth of the mouth
_TONGUE: Final = np.array([0.50, 0.36, 0.36], np.float32)  # of the lips' colour, at the lower lip
_CORNER: Final = np.array([0.42, 0.34, 0.34], np.float32)  # of the lips' colour, where they meet
_TOOTH: Final = np.array([1.04, 0.99, 0.91], np.float32)  # of the nose's brightness: teeth are duller than they seem
_LIGHT: Final = 0.35  # share of the light's colour, taken from the nose, in theirs
_NOSE: Final = (28, 29, 30, 32, 34)
_LIPS: Final = (50, 51, 52, 56, 57, 58)


def paint_inside(
    picture: Floats32,
    base: NDArray[np.uint8],
    points: Floats,
    target_inner: Floats,
    corner: tuple[int, int],
    unit: float,
) -> None:
    """Paint the inside of the mouth into `picture` in place.

    picture: float32 [h, w, 3], 0…255, a region of the crop with the lips warped already; corner: its (x, y) there.
    base: the crop [S, S, 3], unwarped. points: [68, 2] and target_inner: [8, 2] (inner lip), crop px.
    unit: px between the outer eye corners.
    """
    own = points[lm.INNER_LIP]
    opened = float(np.linalg.norm(target_inner[6] - target_inner[2])) / unit
    own_opened = float(np.linalg.norm(own[6] - own[2])) / unit
    edge = max(_EDGE * unit, 0.8)
    low = np.maximum(np.floor(target_inner.min(axis=0) - 3 * edge).astype(int), corner)
    high = np.ceil(target_inner.max(axis=0) + 3 * edge).astype(int) + 1
    high = np.minimum(high, np.add(corner, picture.shape[1::-1]))
    if opened <= max(CLOSED / 2, own_opened) or (low >= high).any():
        return
    # A mouth that begins to open shows a dark line first; without this fade the inside would pop up.
    strength = np.clip((opened - max(CLOSED / 2, own_opened)) / (CLOSED / 2), 0, 1)

    box, size = (int(low[0]), int(low[1])), (int(high[0] - low[0]), int(high[1] - low[1]))
    mouth = _filled(_spline(target_inner - low), size, edge) * np.float32(strength)
    axes = MouthAxes.of(own)
    along, down = axes.of_pixels(box, size)
    upper = axes.edge(target_inner, UPPER_EDGE, along)
    half = max(float(np.linalg.norm(target_inner[4] - target_inner[0])) / 2, 1.0)
    gap = axes.edge(target_inner, LOWER_EDGE, along) - upper
    inside = _depth(down - upper, gap, along / np.float32(half), _median(base, points[list(_LIPS)]))
    if own_opened >= CLOSED:
        # The source's inside ends before its lower lip begins, in a soft shade.
        lower = axes.edge(own, LOWER_EDGE, along)
        teeth = base[box[1] : box[1] + size[1], box[0] : box[0] + size[0]].astype(np.float32)
        cover = np.clip((lower - down) / np.float32(2 * edge) - 0.5, 0, 1)
    else:
        nose = _median(base, points[list(_NOSE)])
        colour = nose.mean() * (1 - _LIGHT) * _TOOTH + _LIGHT * nose
        teeth, cover = _teeth(along, down, upper, axes.edge(own, UPPER_EDGE, along), axes.of_points(own), unit, colour)
    inside += cover[..., None] * (teeth - inside)
    region = picture[box[1] - corner[1] :, box[0] - corner[0] :][: size[1], : size[0]]
    region += mouth[..., None] * (inside - region)


def _spline(points: Floats) -> Floats:
    """Return a closed Catmull–Rom curve through points [8, 2]; the mouth's corners (0 and 4) stay sharp."""
    share = np.arange(_SPLINE)[:, None] / _SPLINE
    pieces = []
    for k in range(len(points)):
        a, b, c, d = (points[(k + step) % len(points)] for step in (-1, 0, 1, 2))
        if k in (0, 4):
            a = b
        if (k + 1) % len(points) in (0, 4):
            d = c
        pieces.append(
            b
            + share * (c - a) / 2
            + share**2 * (a - 2.5 * b + 2 * c - d / 2)
            + share**3 * (1.5 * (b - c) + (d - a) / 2)
        )
    return np.concatenate(pieces)


def _filled(outline: Floats, size: tuple[int, int], edge: float) -> Floats32:
    """Return the outline filled with 1, float32 [h, w], its edge softened over `edge` px."""
    filled = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(filled, [np.rint(outline * 16).astype(np.int32)], (255,), lineType=cv2.LINE_AA, shift=4)
    return np.asarray(cv2.GaussianBlur(filled.astype(np.float32) / 255, (0, 0), edge / 2), np.float32)


def _median(picture: NDArray[np.uint8], places: Floats) -> Floats32:
    """Return the median colour [3] at places [k, 2], px."""
    x = np.clip(np.rint(places[:, 0]).astype(int), 0, picture.shape[1] - 1)
    y = np.clip(np.rint(places[:, 1]).astype(int), 0, picture.shape[0] - 1)
    colour: Floats32 = np.median(picture[y, x], axis=0).astype(np.float32)
    return colour


def _depth(below: Floats32, gap: Floats32, across: Floats32, lips: Floats32) -> Floats32:
    """Return the dark inside [h, w, 3], lighter towards the lower lip, where the tongue lies, and in the corners."""
    lowness = np.clip(below / np.maximum(gap, 1), 0, 1)[..., None]
    tongue = np.clip((lowness - 0.45) / 0.55, 0, 1)
    tongue = tongue * tongue * (3 - 2 * tongue)
    share = _DARK + (_TONGUE - _DARK) * tongue
    corner = np.minimum(across**4, 1)[..., None]
    return np.asarray(lips * (share + (_CORNER - share) * corner), np.float32)


def _teeth(
    along: Floats32, down: Floats32, lip: Floats32, line: Floats32, own: Floats, unit: float, colour: Floats32
) -> tuple[Floats32, Floats32]:
    """Return the upper teeth, colour [h, w, 3] and cover [h, w].

    lip: how far down the upper lip's edge is now; line: where it is in the source, whose closed mouth hides all but a
    little of the teeth. own: the source's inner lip [8, 2], all along and down the mouth. colour: a lit tooth's.
    """
    half = max(float(own[4, 0] - own[0, 0]) / 2, 1.0)
    across = along / np.float32(half)
    tooth = along / np.float32(_TOOTH_WIDTH * unit)
    gap = np.abs(tooth - np.rint(tooth))  # 0 between two teeth: the midline lies between the first two
    # incisors reach lowest, the teeth beside them less and less; each is rounded off at its sides
    tip = line + np.float32(_SHOWN_TEETH * unit) * (1 - across**2)
    tip = tip - np.float32(0.008 * unit) * np.exp(-((gap / 0.10) ** 2))
    soft = np.float32(max(0.012 * unit, 1.2))
    cover = np.clip((tip - down) / soft + 0.5, 0, 1) * np.clip((_TEETH_REACH - np.abs(across)) / 0.3, 0, 1)
    shade = 0.65 + 0.35 * np.clip((down - lip) / np.float32(0.035 * unit), 0, 1)  # the lip's shadow
    shade = shade * (1 - 0.5 * across**2) * (1 - 0.10 * np.exp(-((gap / 0.07) ** 2)))
    return np.minimum(colour * shade[..., None].astype(np.float32), 255), cover.astype(np.float32)
