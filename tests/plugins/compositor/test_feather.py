from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_compositor.feather import bounding_box, feather_px, feathered
from lipsync_core import landmarks as lm


@given(st.integers(0, 1000), st.floats(0, 12))
def test_the_bounding_box_alone_gives_the_same_alpha(seed: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 50), np.float32)
    top, left = rng.integers(0, 30, 2)
    mask[top : top + rng.integers(1, 20), left : left + rng.integers(1, 30)] = rng.uniform(0.2, 1)
    mask[(rng.random(mask.shape) < 0.02)] = 1
    box = bounding_box(mask)
    assert box is not None
    whole = feathered(mask, width)
    np.testing.assert_allclose(feathered(mask[box], width), whole[box], atol=1e-6)
    outside = np.ones(mask.shape, bool)
    outside[box] = False
    assert not mask[outside].any()
    assert (whole <= mask).all()
    assert not whole[mask == 0].any()


def test_a_mask_of_nothing_has_no_box() -> None:
    assert bounding_box(np.zeros((5, 6), np.float32)) is None


def test_the_width_follows_the_eyes_in_the_crop() -> None:
    landmarks = np.full((lm.COUNT, 2), np.nan, np.float32)
    landmarks[lm.EYE_OUTER_LEFT], landmarks[lm.EYE_OUTER_RIGHT] = (10, 20), (40, 60)  # 50 px in the frame
    matrix = np.array([[2.0, 0, 5], [0, 2.0, -3]])
    assert feather_px(matrix, landmarks, 256, 0.1) == pytest.approx(10)
    landmarks[lm.EYE_OUTER_LEFT] = np.nan
    assert feather_px(matrix, landmarks, 256, 0.1) == pytest.approx(0.1 * 0.4 * 256)
