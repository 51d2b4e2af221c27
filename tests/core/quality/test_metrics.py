"""Each figure of the evaluation, on cases whose answer is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.quality import metrics


def test_amplitude_is_of_what_a_mouth_can_do() -> None:
    truth = np.array([10.0, 12, 10, 16, 10])  # px; at rest in most frames
    measured = (truth - 10) / 2
    # Asked for the true shapes: the ratio of the deviations, whatever the units.
    assert metrics.amplitude(truth, measured, truth, measured) == pytest.approx(1.0)
    assert metrics.amplitude(3 * truth, measured, truth, measured) == pytest.approx(3.0)
    assert metrics.amplitude(truth, 2 * measured, truth, measured) == pytest.approx(0.5)
    # The frames at rest cannot close further, however strongly they are asked to.
    asked = np.where(measured == 0, -7.0, measured)
    assert metrics.amplitude(truth, asked, truth, measured) == pytest.approx(1.0)


def face(opening: float, scale: float = 100.0, turn: float = 0.0) -> NDArray[np.float32]:
    """A face whose outer eye corners are `scale` px apart, turned by `turn` rad, the inner lips `opening` apart."""
    points = np.zeros((68, 2))
    points[lm.EYE_OUTER_LEFT], points[lm.EYE_OUTER_RIGHT] = (-0.5, 0), (0.5, 0)
    angles = np.linspace(np.pi, 3 * np.pi, 12, endpoint=False)
    points[lm.OUTER_LIP] = np.c_[0.3 * np.cos(angles), 1 + 0.2 * np.sin(angles)]
    points[lm.UPPER_LIP_INNER], points[lm.LOWER_LIP_INNER] = (0, 1 - opening / 2), (0, 1 + opening / 2)
    turned = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return (turned * scale + (200, 100)).astype(np.float32)


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=5), st.floats(20, 500), st.floats(-math.pi, math.pi))
def test_mouth_opening_is_in_eye_distances_whatever_the_scale_and_turn(
    openings: list[float], scale: float, turn: float
) -> None:
    landmarks = np.stack([face(opening, scale, turn) for opening in openings])
    np.testing.assert_allclose(metrics.mouth_opening(landmarks), openings, atol=1e-4)


@given(st.floats(20, 500), st.floats(-math.pi, math.pi), st.floats(0.01, 0.2))
def test_lip_distance_is_of_the_movement_alone(scale: float, turn: float, more: float) -> None:
    openings = [0.0, 0.1, 0.3]
    here = np.stack([face(opening) for opening in openings])
    there = np.stack([face(opening, scale, turn) for opening in openings])
    assert metrics.lip_distance(here, there) == pytest.approx(0, abs=0.01)
    wider = np.stack([face(opening) for opening in (0.0, 0.1, 0.3 + more)])
    # Two of twenty points move by half of it in one frame of three; the means that are taken off spread it about.
    assert 0.01 * 100 * more < metrics.lip_distance(here, wider) < 0.1 * 100 * more


def test_pearson_of_known_series() -> None:
    assert metrics.pearson(np.array([1, 2, 3]), np.array([2, 4, 6.0])) == pytest.approx(1)
    assert metrics.pearson(np.array([1, 2, 3]), np.array([3, 2, 1.0])) == pytest.approx(-1)
    assert metrics.pearson(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == pytest.approx(0)
    series = np.random.default_rng(3).normal(size=(2, 50))
    assert metrics.pearson(*series) == pytest.approx(np.corrcoef(series)[0, 1])


def test_pearson_of_what_does_not_vary_is_nan() -> None:
    assert math.isnan(metrics.pearson(np.ones(9), np.arange(9)))
    assert math.isnan(metrics.pearson(np.arange(2), np.arange(2)))


def test_pearson_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="cannot be correlated"):
        metrics.pearson(np.arange(4), np.arange(5))


def test_pooling_takes_each_clips_mean_off() -> None:
    up, down = np.arange(5.0), np.arange(5.0)[::-1]
    assert metrics.pooled_pearson([(up, up), (up + 9, up - 9)]) == pytest.approx(1)
    # by itself each clip agrees fully or not at all; between their means a plain r would find agreement
    assert metrics.pooled_pearson([(up, up), (up + 100, down + 100)]) == pytest.approx(0)
    assert math.isnan(metrics.pooled_pearson([]))


@given(st.integers(-5, 5), st.integers(30, 80))
def test_best_lag_finds_a_planted_delay(lag: int, n: int) -> None:
    rng = np.random.default_rng(n)
    series = rng.normal(size=n + 10)
    late = np.roll(series, lag)[5:-5]  # late[t] = series[t − lag]
    assert metrics.best_lag(late, series[5:-5]) == lag


def test_best_lag_is_zero_where_nothing_moves() -> None:
    assert metrics.best_lag(np.zeros(40), np.arange(40)) == 0
    assert metrics.best_lag(np.arange(2), np.arange(2)) == 0


def test_mouth_box_holds_the_lips_and_stays_in_the_frame() -> None:
    points = face(0.1)
    x, y, _, height = metrics.mouth_box(points, 1000, 1000)
    lips = points[lm.LIPS]
    assert x == math.floor(lips[:, 0].min() - 30)
    assert y + height == math.ceil(lips[:, 1].max() + 30)
    assert metrics.mouth_box(points, 200, 190) == (x, y, 200 - x, 190 - y)
    assert metrics.mouth_box(points - 1000, 200, 190) == (0, 0, 0, 0)


def texture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 190, (400, 400, 3), dtype=np.uint8)


def test_an_output_like_its_base_has_ratios_of_one() -> None:
    look = metrics.MouthLook()
    for index in range(4):
        look.add(index, texture(index), texture(index), face(0.1))
    assert look.flicker == pytest.approx(1)
    assert look.sharpness == pytest.approx(1)


def test_twice_the_movement_is_twice_the_flicker() -> None:
    look = metrics.MouthLook()
    for index in range(6):
        flat = np.full((400, 400, 3), 100, np.uint8)
        look.add(index, flat + np.uint8(20 * (index % 2)), flat + np.uint8(10 * (index % 2)), face(0.1))
    assert look.flicker == pytest.approx(2)


def test_flicker_is_not_measured_across_a_gap() -> None:
    look = metrics.MouthLook()
    for index in (0, 2, 4):
        look.add(index, texture(index), texture(index + 1), face(0.1))
    assert math.isnan(look.flicker)


def test_a_blurred_mouth_is_less_sharp_and_outside_the_box_does_not_count() -> None:
    base = texture(1)
    x, y, width, height = metrics.mouth_box(face(0.1), 400, 400)
    soft = base.copy()
    soft[y : y + height, x : x + width] = cv2.GaussianBlur(base, (0, 0), 2)[y : y + height, x : x + width]
    elsewhere = cv2.GaussianBlur(base, (0, 0), 2)
    elsewhere[y : y + height, x : x + width] = base[y : y + height, x : x + width]
    blurred, kept = metrics.MouthLook(), metrics.MouthLook()
    blurred.add(0, soft, base, face(0.1))
    kept.add(0, elsewhere, base, face(0.1))
    assert blurred.sharpness < 0.1
    assert kept.sharpness == 1


def test_changed_outside_counts_exactly_what_the_mask_does_not_allow() -> None:
    before = texture(2)
    after = before.copy()
    after[110:120, 50:60] += np.uint8(1)  # inside
    mask = np.zeros((64, 64), np.float32)
    mask[10:20, 10:20] = 0.01
    shift = np.array([[1.0, 0, -40], [0, 1, -100]])
    assert metrics.changed_outside(before, after, mask, shift) == 0
    after[120, 50] += np.uint8(1)  # the row below
    after[0, 0, 2] += np.uint8(1)
    assert metrics.changed_outside(before, after, mask, shift) == 2
