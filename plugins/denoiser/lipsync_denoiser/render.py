"""Drawing one output frame: base and chosen mouth warped to the same landmarks, matched in colour, blended."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_denoiser.cavity import paint_inside
from lipsync_denoiser.mouth_axes import LOWER_EDGE, Floats, Floats32, MouthAxes
from lipsync_denoiser.warp import grid, sample, thin_plate

MOVED: Final = (*range(lm.JAW.start, lm.JAW.stop), *range(lm.LIPS.start, lm.LIPS.stop))
"""The landmarks a target is given for: jaw, then lips."""

_OUTER: Final = slice(17, 29)  # the lips within the control points
_INNER: Final = slice(29, 37)
_UPPER_LIP: Final = (18, 19, 20, 21, 22, 30, 31, 32)  # without the corners, which belong to both
_LOWER_LIP: Final = (24, 25, 26, 27, 28, 34, 35, 36)
_SEAM_PX: Final = 1.5  # of the lower lip's edge where it lies over what is behind

_ANCHORS: Final = (30, 31, 32, 33, 34, 35, lm.EYE_OUTER_LEFT, 39, 42, lm.EYE_OUTER_RIGHT)  # nose and eyes stay
_RING_JAW: Final = (0, 2, 4, 6, 8, 10, 12, 14, 16)  # pushed outwards, these fix what lies beyond the face
_RING: Final = 1.35

_FINE_STEP, _COARSE_STEP = 4, 8  # px of the warp's grid
_COARSE_UNIT: Final = 160.0  # px between the outer eye corners from which the coarse grid does
_MASK_FADE: Final = 0.12  # units over which the base's warp sets in from the mask's edge
_SIDE: Final = 0.13  # units by which the patch reaches beyond the lips
_TO_NOSE: Final = 0.45  # of the way from the upper lip to the nose it reaches
_FEATHER: Final = 0.05  # units of the patch's soft edge (EXEMPLAR.md)
_RING_SAMPLES: Final = 48.0  # samples a unit, each way, of the colour fit
_OUTLIER: Final = 2.0  # standard deviations beyond which a sample says nothing about colour


def control_points(points: Floats) -> Floats:
    """Return the warp's control points [56, 2] of landmarks [68, 2]: jaw, lips, anchors, and a ring outside the jaw."""
    ring = points[lm.NOSE_BOTTOM] + _RING * (points[list(_RING_JAW)] - points[lm.NOSE_BOTTOM])
    return np.concatenate([points[list(MOVED)], points[list(_ANCHORS)], ring])


def render(
    base: NDArray[np.uint8],
    generate: Floats32,
    points: Floats,
    target: Floats,
    patch: tuple[NDArray[np.uint8], Floats] | None,
    out: Floats32,
) -> None:
    """Draw into `out` float32 [S, S, 3], 0…1, which holds the base already.

    base: crop uint8 [S, S, 3]. generate: mask [S, S]. points: [68, 2] crop px. target: [37, 2] crop px, as `MOVED`.
    patch: the chosen mouth's pixels [h, w, 3] and its landmarks [68, 2] in them; None to open the base's own mouth.
    """
    unit = float(np.linalg.norm(points[lm.EYE_OUTER_RIGHT] - points[lm.EYE_OUTER_LEFT]))
    x, y, width, height = cv2.boundingRect((generate > 0).view(np.uint8))
    if width == 0 or unit < 1:
        return
    step = _COARSE_STEP if unit >= _COARSE_UNIT else _FINE_STEP
    cells = (-(-height // step), -(-width // step))
    mask = generate[y : y + height, x : x + width]

    source = control_points(points)
    wanted = source.copy()
    wanted[: len(MOVED)] = target
    outer = np.r_[: _INNER.start, _INNER.stop : len(wanted)]  # the patch covers what is inside the lips
    field = thin_plate(wanted[outer], source[outer], grid(x, cells[1], step), grid(y, cells[0], step), unit)
    field *= _fade_in(mask, cells, step, unit)[..., None]
    lower_face = sample(base, field, (x, y), step)[:height, :width].astype(np.float32)

    alpha, (left, top) = _patch_alpha(wanted, points[lm.NOSE_BOTTOM], unit, (x, y), (width, height))
    if alpha.size:
        pixels, patch_points = (base, points) if patch is None else patch
        mouth = _mouth(pixels, control_points(patch_points), wanted, (x + left, y + top), alpha.shape, step, unit)
        if patch is None:
            paint_inside(mouth, base, points, target[-8:], (x + left, y + top), unit)
        around = lower_face[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        mouth += _colour_plane(around, mouth, alpha, unit)
        around += alpha[..., None] * (mouth - around)

    region = out[y : y + height, x : x + width]
    lower_face *= np.float32(1 / 255)
    region += mask[..., None] * (lower_face - region)


def _mouth(
    pixels: NDArray[np.uint8],
    source: Floats,
    wanted: Floats,
    corner: tuple[int, int],
    shape: tuple[int, ...],
    step: int,
    unit: float,
) -> Floats32:
    """Return a mouth warped to the wanted control points: float32 [h, w, 3], 0…255, of the box at `corner` in the crop.

    A mouth that opens is stretched whole. One that closes is drawn in two layers, each with its own lip's points only:
    the upper lip and all that belongs to the skull, teeth above all, and over it the lower lip. In one layer the inner
    edges of both lips would come to lie on the same place, and the warp would fold.
    """
    height, width = shape[:2]
    cells = (-(-height // step), -(-width // step))
    grid_x, grid_y = grid(corner[0], cells[1], step), grid(corner[1], cells[0], step)

    def layer(rows: NDArray[np.intp]) -> Floats32:
        field = thin_plate(wanted[rows], source[rows], grid_x, grid_y, unit)
        return sample(pixels, field, corner, step)[:height, :width].astype(np.float32)

    everything = np.arange(len(wanted))
    inner = wanted[_INNER]
    opened = float(np.linalg.norm(inner[6] - inner[2]))
    if opened >= float(np.linalg.norm(source[_INNER][6] - source[_INNER][2])):
        return layer(everything)
    upper, lower = layer(np.delete(everything, _LOWER_LIP)), layer(np.delete(everything, _UPPER_LIP))
    axes = MouthAxes.of(inner)
    along, down = axes.of_pixels(corner, (width, height))
    share = np.clip((down - axes.edge(inner, LOWER_EDGE, along)) / np.float32(_SEAM_PX) + np.float32(0.5), 0, 1)
    upper += share[..., None] * (lower - upper)
    return upper


def _fade_in(mask: Floats32, cells: tuple[int, int], step: int, unit: float) -> Floats32:
    """Return a weight for each grid cell: 0 at the mask's edge, 1 from `_MASK_FADE` inside."""
    inside = np.zeros((cells[0] + 2, cells[1] + 2), np.uint8)
    small = mask[step // 2 :: step, step // 2 :: step] > 0
    inside[1 : 1 + small.shape[0], 1 : 1 + small.shape[1]] = small
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1] - 1
    ramp = np.clip(depth * np.float32(step / (_MASK_FADE * unit)), 0, 1)
    weight: Floats32 = ramp * ramp * (3 - 2 * ramp)
    return weight


def _patch_alpha(
    wanted: Floats, nose: Floats, unit: float, corner: tuple[int, int], size: tuple[int, int]
) -> tuple[Floats32, tuple[int, int]]:
    """Return the patch's alpha [h, w] and the (left, top) of its box in the region at `corner` of `size`.

    The patch is the outer lip pushed outwards from the mouth's middle, less towards the nose.
    """
    lips = wanted[_OUTER]
    middle = (lips[0] + lips[6]) / 2
    outwards = lips - middle
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
    up = (nose - middle) / max(float(np.linalg.norm(nose - middle)), 1e-6)
    gap = max(float((nose - lips[3]) @ up), 0.0)
    upwards = np.clip(outwards @ up, 0, 1)[:, None]
    reach = upwards * min(_TO_NOSE * gap, _SIDE * unit) + (1 - upwards) * _SIDE * unit
    outline = lips + outwards * reach - np.array(corner)

    feather = max(round(_FEATHER * unit), 1)
    low = np.clip(np.floor(outline.min(axis=0)).astype(int) - feather, 0, size)
    high = np.clip(np.ceil(outline.max(axis=0)).astype(int) + feather + 1, 0, size)
    filled = np.zeros((max(high[1] - low[1], 0), max(high[0] - low[0], 0)), np.uint8)
    if filled.size:
        shape = np.rint((outline - low) * 16).astype(np.int32)
        cv2.fillPoly(filled, [shape], (255,), lineType=cv2.LINE_AA, shift=4)
        kernel = (2 * (feather // 2) + 1,) * 2
        soft = cv2.blur(cv2.blur(filled.astype(np.float32) / 255, kernel), kernel)
        return np.asarray(soft, np.float32), (int(low[0]), int(low[1]))
    return filled.astype(np.float32), (0, 0)


def _colour_plane(around: Floats32, mouth: Floats32, alpha: Floats32, unit: float) -> Floats32:
    """Return what to add to the mouth [h, w, 3]: a plane for each channel, fitted where the patch's edge is."""
    stride = max(round(unit / _RING_SAMPLES), 1)
    height, width = alpha.shape
    rows, columns = np.nonzero((alpha[::stride, ::stride] > 0.02) & (alpha[::stride, ::stride] < 0.98))
    if len(rows) < 12:
        return np.zeros((1, 1, 3), np.float32)
    difference = (around[::stride, ::stride] - mouth[::stride, ::stride])[rows, columns].astype(np.float64)
    place = np.stack([np.ones(len(rows)), columns * stride / unit, rows * stride / unit], axis=1)
    plane: Floats = np.zeros((3, 3))
    keep = np.ones(len(rows), bool)
    for _ in range(2):  # once for all, once without what the first plane cannot explain
        used = place[keep]
        gram = used.T @ used + 1e-3 * len(used) * np.diag([0.0, 1.0, 1.0])
        plane = np.asarray(np.linalg.solve(gram, used.T @ difference[keep]), np.float64)
        rest = np.abs(difference - place @ plane).max(axis=1)
        keep = rest <= _OUTLIER * max(float(np.sqrt((rest**2).mean())), 1e-6)
    plane32 = plane.astype(np.float32)
    x = (np.arange(width, dtype=np.float32) / np.float32(unit))[None, :, None]
    y = (np.arange(height, dtype=np.float32) / np.float32(unit))[:, None, None]
    out: Floats32 = plane32[0] + x * plane32[1] + y * plane32[2]
    return out
