from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lipsync_denoiser.warp import grid, sample, thin_plate


def _points(seed: int, k: int = 12) -> np.ndarray:
    """Return points of which no two are nearer than 8 px."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(49, k, replace=False)
    return np.stack([cells % 7, cells // 7], axis=1) * 14.0 + rng.uniform(0, 6, (k, 2))


@given(st.integers(0, 10_000), st.floats(0, 5))
def test_the_warp_takes_each_control_point_to_its_source(seed, amount):
    wanted = _points(seed)
    source = wanted + np.random.default_rng(seed + 1).normal(0, max(amount, 1e-3), wanted.shape)
    for k in range(0, len(wanted), 3):
        x, y = wanted[k].astype(np.float32)
        moved = thin_plate(wanted, source, np.array([x]), np.array([y]), 60.0)[0, 0]
        np.testing.assert_allclose(wanted[k] + moved, source[k], atol=0.02 + 0.02 * amount)


@given(st.integers(0, 10_000))
def test_an_affine_map_is_reproduced_everywhere(seed):
    rng = np.random.default_rng(seed)
    wanted = _points(seed)
    matrix, shift = np.eye(2) + rng.normal(0, 0.2, (2, 2)), rng.normal(0, 10, 2)
    x, y = grid(-20, 10, 8), grid(5, 6, 8)
    moved = thin_plate(wanted, wanted @ matrix.T + shift, x, y, 60.0)
    places = np.stack(np.meshgrid(x, y), axis=2)
    np.testing.assert_allclose(places + moved, places @ matrix.T + shift, atol=2e-3)


def test_points_that_all_but_coincide_do_not_blow_up_the_warp():
    wanted = np.concatenate([_points(0), [[50.0, 50.0], [50.0, 50.05]]])
    source = wanted.copy()
    source[-1, 1] += 6.0
    moved = thin_plate(wanted, source, grid(0, 25, 4), grid(0, 25, 4), 60.0)
    assert np.abs(moved).max() < 12.0


def test_no_displacement_gives_the_picture_back():
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    seen = sample(picture, np.zeros((6, 9, 2), np.float32), (8, 12), 4)
    np.testing.assert_array_equal(seen, picture[12:36, 8:44])


def test_a_whole_shift_samples_the_shifted_picture_and_repeats_the_edge():
    picture = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    field = np.full((6, 6, 2), (3.0, -2.0), np.float32)
    seen = sample(picture, field, (0, 0), 4)
    np.testing.assert_array_equal(seen[2:, :21], picture[:22, 3:])
    np.testing.assert_array_equal(seen[0, :21], picture[0, 3:])


def test_the_grid_is_at_the_middles_of_its_cells():
    np.testing.assert_allclose(grid(10, 3, 4), [11.5, 15.5, 19.5])


def test_a_ramp_of_displacements_is_read_where_it_belongs():
    picture = np.tile(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], (16, 1, 3))  # 2 levels a px
    x = grid(0, 20, 4)
    field = np.zeros((4, 20, 2), np.float32)
    field[..., 0] = 0.25 * x
    seen = sample(picture, field, (0, 0), 4)[8, 8:72, 0].astype(float)
    np.testing.assert_allclose(seen, 2 * 1.25 * np.arange(8, 72), atol=1.0)
