from __future__ import annotations

import numpy as np
import pytest

from lipsync_core import landmarks as lm
from lipsync_denoiser.cavity import paint_inside

from .drawing import TEETH, draw, landmarks, poses, shapes_of_opening

UNIT = 60.0


def _paint(own: float, wanted: float, roll: float = 0.0):
    pose = poses(1, UNIT, (85.0, 75.0), roll=roll)
    points = landmarks(shapes_of_opening(np.array([own])), pose)[0].astype(float)
    target = landmarks(shapes_of_opening(np.array([wanted])), pose)[0, lm.INNER_LIP].astype(float)
    base = draw(points.astype(np.float32), (170, 170))
    picture = np.full((110, 120, 3), 128, np.float32)
    paint_inside(picture, base, points, target, (20, 50), UNIT)
    return picture, base, points, target - (20, 50)


@pytest.mark.parametrize("roll", [0.0, 40.0, 90.0, 180.0])
def test_an_opened_mouth_is_dark_below_and_has_teeth_above(roll):
    picture, _, points, inner = _paint(0.0, 0.18, roll)
    low, high = inner[6], inner[2]
    dark = picture[tuple(np.rint(low + 0.3 * (high - low)).astype(int)[::-1])]
    tooth = picture[tuple(np.rint(high + 0.15 * (low - high)).astype(int)[::-1])]
    assert dark.mean() < 60
    assert tooth.mean() > dark.mean() + 50
    assert points.shape == (68, 2)


def test_nothing_is_painted_outside_the_inner_lip():
    picture, _, _, inner = _paint(0.0, 0.18)
    rows, columns = np.nonzero((picture != 128).any(axis=2))
    assert len(rows) > 50
    assert rows.min() >= inner[:, 1].min() - 5
    assert rows.max() <= inner[:, 1].max() + 5
    assert columns.min() >= inner[:, 0].min() - 5
    assert columns.max() <= inner[:, 0].max() + 5


@pytest.mark.parametrize(("own", "wanted"), [(0.0, 0.0), (0.12, 0.12), (0.12, 0.05), (0.0, 0.01)])
def test_a_mouth_that_does_not_open_further_is_left_alone(own, wanted):
    picture, *_ = _paint(own, wanted)
    np.testing.assert_array_equal(picture, 128)


def test_an_open_sources_own_teeth_stay_where_they_are():
    picture, base, points, _ = _paint(0.10, 0.20)
    inner = points[lm.INNER_LIP]
    x, y = np.rint(inner[2] + 0.2 * (inner[6] - inner[2])).astype(int)
    assert np.abs(base[y, x].astype(float) - TEETH).max() < 30
    np.testing.assert_allclose(picture[y - 50, x - 20], base[y, x], atol=12)


def test_the_inside_comes_on_gradually():
    amounts = [float(np.abs(_paint(0.0, o)[0] - 128).sum()) for o in (0.015, 0.018, 0.022, 0.026, 0.035)]
    assert amounts[0] < 1.0
    assert amounts == sorted(amounts)
    assert amounts[1] < 0.5 * amounts[3]


def test_a_mouth_outside_the_region_is_no_error():
    pose = poses(1, UNIT, (-300.0, -300.0))
    points = landmarks(shapes_of_opening(np.array([0.0])), pose)[0].astype(float)
    picture = np.full((30, 30, 3), 128, np.float32)
    paint_inside(picture, np.zeros((170, 170, 3), np.uint8), points, points[lm.INNER_LIP] + [0, 5], (20, 50), UNIT)
    np.testing.assert_array_equal(picture, 128)
