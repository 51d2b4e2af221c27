from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lipsync_denoiser.bank import bank_frames, cut, look, oddity, patch_rect, share, sharpness
from lipsync_denoiser.head import GENERIC_FACE

from .drawing import draw, landmarks, poses, shapes_of_opening


@given(st.integers(0, 3000), st.integers(1, 500))
def test_a_bank_is_bounded_and_made_of_the_scenes_frames_in_order(n, most):
    frames = np.arange(100, 100 + n, dtype=np.int64)
    kept = bank_frames(frames, most)
    assert len(kept) <= most
    assert np.isin(kept, frames).all()
    assert (np.diff(kept) > 0).all()
    if n <= most:
        np.testing.assert_array_equal(kept, frames)
    elif most >= 100:
        assert kept[0] == frames[0]
        assert kept[-1] == frames[-1]
        assert len(kept) >= most - 50
        assert (np.diff(kept) == 1).mean() > 0.9, "windows of consecutive frames"


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 500)), max_size=8), st.integers(0, 500_000))
def test_the_file_stays_within_its_budget(scenes, budget):
    sizes, weights = [s for s, _ in scenes], [w for _, w in scenes]
    kept = share(sizes, weights, budget)
    assert sum(k * w for k, w in zip(kept, weights, strict=True)) <= budget
    assert all(0 <= k <= s for k, s in zip(kept, sizes, strict=True))
    if sum(s * w for s, w in zip(sizes, weights, strict=True)) <= budget:
        assert kept == sizes


def test_a_patch_beyond_the_crop_repeats_its_edge():
    crop = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut(crop, (2, 3, 4, 5)), crop[3:8, 2:6])
    beyond = cut(crop, (-3, 7, 6, 6))
    np.testing.assert_array_equal(beyond[:3, 3:], crop[7:, :3])
    np.testing.assert_array_equal(beyond[5, 0], crop[9, 0])


def test_a_patch_covers_the_mouth_and_the_chin():
    points = landmarks(shapes_of_opening(np.array([0.1])), poses(1))[0]
    x, y, width, height = patch_rect(points, 60.0)
    lower = points[[*range(5, 12), *range(48, 68)]]
    assert (lower[:, 0] >= x).all() or (points[48:68, 0] >= x + 10).all()
    assert (points[48:68] >= [x, y]).all()
    assert (points[48:68] < [x + width, y + height]).all()
    assert points[8, 1] < y + height


def test_sharpness_falls_with_blur():
    import cv2

    picture = draw(landmarks(shapes_of_opening(np.array([0.1])), poses(1))[0], (170, 170))
    assert sharpness(cv2.GaussianBlur(picture, (0, 0), 2)) < 0.7 * sharpness(picture)


def test_a_mouth_that_looks_unlike_its_shape_is_odd():
    opening = np.linspace(0, 0.2, 40)
    shapes = shapes_of_opening(opening)
    points = landmarks(shapes, poses(40))
    looks = []
    for k in range(40):
        picture = draw(points[k], (170, 170))
        if k == 20:  # a hand before the mouth
            picture[70:, 40:120] = (200, 150, 120)
        rect = patch_rect(points[k], 60.0)
        looks.append(look(cut(picture, rect), rect, points[k], 60.0))
    scores = (shapes - shapes.mean(axis=0)) / np.maximum(shapes.std(axis=0), 1e-6)
    odd = oddity(scores, np.stack(looks))
    assert odd.argmax() == 20
    assert odd[20] > 3
    assert np.median(odd) == 1.0


def test_too_few_mouths_are_not_called_odd():
    np.testing.assert_array_equal(oddity(np.zeros((5, 8)), np.random.default_rng(0).random((5, 192), np.float32)), 1.0)
    assert GENERIC_FACE.shape == (68, 3)
