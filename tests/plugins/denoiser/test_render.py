from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipsync_core import landmarks as lm
from lipsync_denoiser.render import MOVED, render

from .drawing import dark_height, draw, landmarks, poses, shapes_of_opening

SIZE = (170, 170)


def _face(opening: float, at=(85.0, 75.0), **angles):
    points = landmarks(shapes_of_opening(np.array([opening])), poses(1, 60.0, at, **angles))[0].astype(float)
    return draw(points.astype(np.float32), SIZE), points


def _mask(points: np.ndarray) -> np.ndarray:
    import cv2

    mask = np.zeros(SIZE, np.float32)
    nose = points[lm.NOSE_BOTTOM]
    outline = np.concatenate([nose + 1.12 * (points[3:14] - nose), points[[35, 33, 31]] + [0, 3]])
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], (1.0,))
    return mask


def _render(base, points, target, patch, mask=None):
    out = base.astype(np.float32) / 255
    render(base, _mask(points) if mask is None else mask, points, target[list(MOVED)], patch, out)
    return out * 255


def test_the_own_mouth_at_its_own_place_is_the_base():
    base, points = _face(0.1)
    out = _render(base, points, points, (base, points))
    assert np.abs(out - base).max() < 3


@settings(max_examples=20)
@given(st.floats(0, 0.2), st.floats(0, 0.2), st.floats(-20, 20))
def test_nothing_changes_where_the_mask_is_zero(opening, wanted, roll):
    base, points = _face(opening, roll=roll)
    _, target = _face(wanted, roll=roll)
    patch, patch_points = _face(0.1)
    mask = _mask(points)
    out = _render(base, points, target, (patch, patch_points), mask)
    np.testing.assert_array_equal(out[mask == 0], (base.astype(np.float32) / 255 * 255)[mask == 0])
    assert np.isfinite(out).all()


def test_an_empty_mask_changes_nothing():
    base, points = _face(0.1)
    out = _render(base, points, _face(0.2)[1], (base, points), np.zeros(SIZE, np.float32))
    np.testing.assert_allclose(out, base, atol=1e-3)


@pytest.mark.parametrize("wanted", [0.06, 0.10, 0.15, 0.19])
def test_the_mouth_opens_as_far_as_the_target_says(wanted):
    base, points = _face(0.0)
    patch = _face(0.15, at=(85.0, 75.0))
    _, target = _face(wanted)
    truth = dark_height(draw(target.astype(np.float32), SIZE))
    assert abs(dark_height(_render(base, points, target, patch).astype(np.uint8)) - truth) <= 2


def test_a_mouth_that_closes_is_shut_without_teeth_between_its_lips():
    base, points = _face(0.12)
    _, target = _face(0.0)
    out = _render(base, points, target, (base, points))
    middle = out[:, 80:91].mean(axis=(1, 2))
    y = round(float(target[lm.UPPER_LIP_INNER, 1]))
    shut = draw(target.astype(np.float32), SIZE)[:, 80:91].mean(axis=(1, 2))
    assert np.abs(middle - shut)[y - 8 : y + 9].mean() < 20
    assert dark_height(out.astype(np.uint8)) <= 1


def test_the_patch_takes_on_the_bases_light():
    base, points = _face(0.0)
    bright, patch_points = _face(0.1)
    dim = (bright * 0.8).astype(np.uint8)
    _, target = _face(0.1)
    lit, matched = (
        _render(base, points, target, (bright, patch_points)),
        _render(base, points, target, (dim, patch_points)),
    )
    chin = tuple(np.rint(target[lm.LOWER_LIP_BOTTOM] + [0, 4]).astype(int)[::-1])
    assert np.abs(lit[chin] - matched[chin]).max() < 8
    assert np.abs(bright[chin].astype(float) - dim[chin]).max() > 25


def test_a_still_mouth_opens_dark():
    base, points = _face(0.0)
    _, target = _face(0.18)
    out = _render(base, points, target, None)
    assert dark_height(out.astype(np.uint8)) >= 4
    assert dark_height(base) == 0


def test_a_face_cut_by_the_crops_edge_is_drawn_all_the_same():
    base, points = _face(0.0, at=(85.0, 140.0))
    _, target = _face(0.15, at=(85.0, 140.0))
    out = _render(base, points, target, _face(0.15))
    assert np.isfinite(out).all()
    assert np.abs(out - base).max() > 50
