from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_compositor import paste

from .restoring import SIDE, H, W, affines, make_matrix


def test_the_crop_rectangle_is_latentsyncs() -> None:
    assert paste.crop_rectangle(256) == (210, 280)
    assert paste.crop_rectangle(512) == (420, 560)
    assert paste.crop_rectangle(64) == (52, 70)


@given(st.lists(affines, min_size=1, max_size=4))
def test_boxes_hold_every_frame_pixel_that_shows_the_area(matrices: list[NDArray[np.float64]]) -> None:
    to_image = np.concatenate(matrices)
    boxes = paste.boxes_around(to_image, paste.reach_of(SIDE, SIDE), (W, H))
    yy, xx = np.mgrid[0:H, 0:W].astype(np.float64)
    frame = np.stack([xx, yy, np.ones_like(xx)], axis=-1)
    for row, matrix in enumerate(to_image):
        place = frame @ matrix.T
        shown = ((place > -1) & (place < SIDE)).all(axis=-1)
        if boxes is None:
            assert not shown.any()
            continue
        x, y = boxes.corners[row]
        assert 0 <= x <= W - boxes.width
        assert 0 <= y <= H - boxes.height
        shown[y : y + boxes.height, x : x + boxes.width] = False
        assert not shown.any()


@given(affines)
def test_a_boxs_own_affine_leads_where_the_frames_does(matrix: NDArray[np.float64]) -> None:
    boxes = paste.Boxes(np.array([[7, 3]]), 20, 10)
    np.testing.assert_allclose(boxes.affines(matrix)[0] @ (5, 4, 1), matrix[0] @ (12, 7, 1), atol=1e-6)
    frame = np.arange(H * W * 3, dtype=np.uint8).reshape(1, H, W, 3)
    np.testing.assert_array_equal(boxes.cut(frame)[0], frame[0, 3:13, 7:27])
    assert np.shares_memory(boxes.view(frame[0], 0), frame)


@pytest.mark.parametrize(("size", "expected"), [(2.0, 32), (1.0, 64), (0.5, 64)])
def test_a_picture_is_matched_to_its_size_in_the_frame_but_not_enlarged(size: float, expected: int) -> None:
    whole = slice(0, SIDE), slice(0, SIDE)
    matrix = make_matrix(0.4, size, 1.0, 50, 40)
    assert paste.part_of_crop(whole, matrix, SIDE) == (whole, (expected, expected))


def test_the_part_of_a_crop_is_what_is_shown_and_what_sampling_reaches() -> None:
    held = slice(30, 50), slice(0, 20)
    assert paste.part_of_crop(held, make_matrix(0, 0.5, 1, 50, 40), 64) == ((slice(25, 55), slice(0, 25)), (25, 30))
    half = paste.part_of_crop(held, make_matrix(0, 2, 1, 50, 40), 64)
    assert half == ((slice(20, 60), slice(0, 30)), (15, 20))


def test_rescaling_keeps_the_picture_where_it_is() -> None:
    """The corners of the pixel grid, half a pixel outside the first and last centres, stay corners."""
    matrix = make_matrix(0.2, 1.1, 0.9, 50, 40)
    wide = paste.rescaled(matrix, (SIDE, SIDE), (128, 32))[0]
    corner = np.linalg.solve(matrix[0, :, :2], np.array([SIDE - 0.5, -0.5]) - matrix[0, :, 2])
    np.testing.assert_allclose(wide @ (*corner, 1), (127.5, -0.5), atol=1e-9)


def test_an_affine_to_a_part_leads_to_the_same_pixel() -> None:
    matrix = make_matrix(0.2, 1.1, 0.9, 50, 40)
    place = paste.moved(matrix, (slice(5, 9), slice(7, 20)))[0] @ (3, 4, 1)
    np.testing.assert_allclose(place + np.array((7, 5)), matrix[0] @ (3, 4, 1))
