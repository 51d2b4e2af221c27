from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipsync_core import landmarks as lm
from lipsync_face import smoothing
from lipsync_face.geometry import apply
from lipsync_face.smoothing import smooth

from .faces import face_points


def similarity(rng: np.random.Generator, shake: float) -> np.ndarray:
    angle, scale = rng.normal(0, 0.02), np.exp(rng.normal(0, 0.02))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, rng.normal(0, shake)], [sin, cos, rng.normal(0, shake)]])


def shaken(n: int, shake: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A still face filmed by a shaking camera: landmarks [n, 68, 2] and motion [n, 2, 3]."""
    motion = np.array([similarity(rng, shake) for _ in range(n)])
    track = [face_points(at=(400, 400))]
    for step in motion[1:]:
        track.append(apply(step, track[-1]))
    return np.array(track), motion


def openings(track: np.ndarray) -> np.ndarray:
    return np.linalg.norm(track[:, lm.LOWER_LIP_INNER] - track[:, lm.UPPER_LIP_INNER], axis=1)


@settings(max_examples=30)
@given(st.integers(1, 60), st.floats(0, 20), st.integers(0, 2**32 - 1))
def test_true_motion_passes_whole(n: int, shake: float, seed: int) -> None:
    track, motion = shaken(n, shake, np.random.default_rng(seed))
    np.testing.assert_allclose(smooth(track, motion), track, atol=1e-6)


def test_jitter_is_taken_out_while_the_camera_shakes() -> None:
    rng = np.random.default_rng(3)
    truth, motion = shaken(200, 5, rng)
    noisy = truth + rng.normal(0, 1, truth.shape)
    error = np.abs(smooth(noisy, motion) - truth).mean(axis=(0, 2))
    before = np.abs(noisy - truth).mean(axis=(0, 2))
    assert (error[lm.NOSE_BRIDGE] < 0.7 * before[lm.NOSE_BRIDGE]).all()
    assert (error[lm.EYE_LEFT] < 0.9 * before[lm.EYE_LEFT]).all()


@given(st.lists(st.floats(0, 20), min_size=7, max_size=60))
def test_the_mouths_opening_is_kept_exactly(opening: list[float]) -> None:
    track = np.array([face_points(v) for v in opening])
    still = np.broadcast_to(np.eye(2, 3), (len(track), 2, 3))
    np.testing.assert_allclose(openings(smooth(track, still)), openings(track), atol=1e-9)


@settings(max_examples=30)
@given(st.integers(7, 60), st.integers(1, 25), st.integers(0, 2**32 - 1))
def test_blocks_give_what_the_whole_gives(n: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, motion = shaken(n, 5, rng)
    noisy = truth + rng.normal(0, 1, truth.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothing, "_BLOCK", block)
        in_blocks = smooth(noisy, motion)
    np.testing.assert_allclose(in_blocks, smooth(noisy, motion), atol=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothing, "_BLOCK", block)
        smooth(noisy, motion, out=noisy)
    np.testing.assert_array_equal(noisy, in_blocks)


def test_there_is_no_lag() -> None:
    """A pulse comes out symmetric about its own frame."""
    track = np.repeat(face_points()[None], 31, axis=0)
    track[15] += 10
    moved = smooth(track, np.broadcast_to(np.eye(2, 3), (31, 2, 3)))[:, :, 0] - face_points()[:, 0]
    np.testing.assert_allclose(moved, moved[::-1], atol=1e-9)
    assert (moved.argmax(axis=0) == 15).all()


@pytest.mark.parametrize("n", [0, 1, 2, 6])
def test_runs_too_short_to_filter_are_left_alone(n: int) -> None:
    track = np.random.default_rng(0).normal(0, 1, (n, 68, 2))
    assert (smooth(track, np.broadcast_to(np.eye(2, 3), (n, 2, 3))) == track).all()


def test_a_steady_turn_keeps_its_ends() -> None:
    """The ends are continued with their slope, so a constant drift is not bent at the first and last frame."""
    track = face_points() + np.arange(20)[:, None, None] * np.array([3.0, -1.0])
    np.testing.assert_allclose(smooth(track, np.broadcast_to(np.eye(2, 3), (20, 2, 3))), track, atol=1e-9)
