from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core import landmarks as lm
from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.head import GENERIC_FACE

shape_changes = st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8)


def _heads(seed: int) -> np.ndarray:
    return GENERIC_FACE[None, :, :2] + np.random.default_rng(seed).normal(0, 0.004, (1, lm.COUNT, 2))


def test_the_eight_numbers_of_a_hand_made_mouth():
    head = np.zeros((1, lm.COUNT, 2))
    head[0, lm.NOSE_BOTTOM] = (0.0, 1.0)
    head[0, lm.UPPER_LIP_TOP], head[0, lm.LOWER_LIP_BOTTOM] = (0, 1.2), (0, 1.7)
    head[0, lm.UPPER_LIP_INNER], head[0, lm.LOWER_LIP_INNER] = (0, 1.3), (0, 1.55)
    head[0, lm.MOUTH_LEFT], head[0, lm.MOUTH_RIGHT] = (-0.4, 1.4), (0.3, 1.4)
    head[0, lm.INNER_LEFT], head[0, lm.INNER_RIGHT] = (-0.3, 1.4), (0.2, 1.4)
    head[0, lm.CHIN] = (0, 2.1)
    head[0, 61], head[0, 67], head[0, 63], head[0, 65] = (-0.1, 1.3), (-0.1, 1.4), (0.1, 1.3), (0.1, 1.5)
    np.testing.assert_allclose(ms.measure(head)[0], [0.25, 0.5, 0.7, 0.5, 0.2, 0.7, 1.1, 0.15])


@given(st.integers(0, 10_000), shape_changes)
def test_landmarks_moved_to_a_shape_measure_that_shape(seed, change):
    head = _heads(seed)
    wanted = ms.consistent(ms.measure(head) + np.array(change))
    np.testing.assert_allclose(ms.measure(ms.move(head, wanted)), wanted, atol=1e-9)


@given(st.integers(0, 10_000), shape_changes)
def test_a_consistent_shape_is_possible_and_stays(seed, change):
    shape = ms.consistent(ms.measure(_heads(seed)) + np.array(change))
    np.testing.assert_allclose(ms.consistent(shape), shape, atol=1e-12)
    np.testing.assert_allclose(shape[:, ms.HEIGHT], shape[:, ms.LOWER] - shape[:, ms.UPPER], atol=1e-12)
    assert (shape[:, ms.OPENING] >= 0).all()
    assert (shape[:, ms.HEIGHT] > shape[:, ms.OPENING]).all()
    assert (shape[:, ms.SIDES] <= 1.1 * shape[:, ms.OPENING] + 1e-12).all()


def test_only_lips_and_jaw_move_and_the_hinge_stays():
    head = _heads(1)
    wanted = ms.consistent(ms.measure(head) + np.array([0.1, 0.1, -0.05, -0.05, 0, 0.1, 0.08, 0.1]))
    moved = ms.move(head, wanted)
    still = [*range(17, 48), 0, 1, 2, 14, 15, 16]
    np.testing.assert_array_equal(moved[:, still], head[:, still])
    drops = moved[0, lm.JAW, 1] - head[0, lm.JAW, 1]
    assert drops.argmax() == lm.CHIN
    assert (np.diff(drops[:9]) >= 0).all(), "the jaw drops less and less towards the hinge"


def test_moving_to_the_own_shape_changes_nothing():
    head = _heads(2)
    shape = ms.measure(head)
    # the mean face is consistent up to the noise's sign at the sides
    np.testing.assert_allclose(ms.move(head, shape), head, atol=1e-9)


def test_no_lip_point_crosses_its_partner_when_the_mouth_shuts():
    head = _heads(4)
    open_shape = ms.consistent(ms.measure(head) + np.array([0.2, 0.2, 0, 0, 0, 0.2, 0.1, 0.2]))
    opened = ms.move(head, open_shape)
    shut = ms.consistent(open_shape * [0, 0, 1, 1, 1, 0, 1, 0] + [0, 0.08, 0, 0, 0, open_shape[0, 4] + 0.08, 0, 0])
    closed = ms.move(opened, shut)[0, :, 1]
    for upper, lower in ((61, 67), (62, 66), (63, 65), (50, 58), (51, 57), (52, 56)):
        assert closed[lower] - closed[upper] >= -0.02


def test_a_smile_is_wide_with_its_corners_up_whatever_the_opening():
    rng = np.random.default_rng(0)
    base = np.repeat(GENERIC_FACE[None, :, :2], 40, 0)
    shapes = ms.measure(base)
    opening = rng.uniform(0, 0.2, 40)
    shapes[:, [ms.OPENING, ms.HEIGHT, ms.LOWER, ms.SIDES]] += opening[:, None]
    shapes[:, ms.WIDTH] += rng.normal(0, 0.005, 40)
    heads = ms.move(base, ms.consistent(shapes))
    heads[:, 48:60, 1] += rng.normal(0, 0.002, (40, 12))
    heads[7, [48, 54], 1] -= 0.06
    heads[7, 48, 0] -= 0.05
    heads[7, 54, 0] += 0.05
    smile = ms.smile(ms.measure(heads), ms.corner_lift(heads))
    assert smile.argmax() == 7
    assert smile[7] > 2.5
    assert abs(np.corrcoef(smile, opening)[0, 1]) < 0.2
