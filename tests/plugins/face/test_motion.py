from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_face.geometry import RIGID, apply
from lipsync_face.motion import MotionMeter

from .faces import face_points


def textured(height: int, width: int, grain: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 1, (height, width))
    soft = cv2.GaussianBlur(noise, (0, 0), grain)
    grey = np.clip(128 + 50 * soft / soft.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.mark.parametrize(("scale", "grain"), [(1.0, 2.0), (5.0, 6.0)])
def test_motion_is_measured_better_than_the_landmarks_say(scale: float, grain: float) -> None:
    frame = textured(round(240 * scale), round(300 * scale), grain)
    points = face_points() * scale + (150 * scale, 90 * scale)
    truth = cv2.getRotationMatrix2D((150 * scale, 100 * scale), 1.5, 1.01)
    truth[:, 2] += (2.3 * scale, -1.7 * scale)
    after = cv2.warpAffine(frame, truth, frame.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    noise = np.random.default_rng(1).normal(0, 0.5 * scale, (68, 2))
    meter = MotionMeter()
    assert (meter.step(frame, points) == np.eye(2, 3)).all()
    measured = meter.step(after, apply(truth, points) + noise)
    error = np.abs(apply(measured, points[RIGID]) - apply(truth, points[RIGID])).max()
    assert error < 0.15 * scale


def test_a_picture_without_features_falls_back_on_the_landmarks() -> None:
    flat = np.full((240, 300, 3), 90, np.uint8)
    points = face_points(at=(150, 90))
    truth = np.array([[1.02, -0.03, 4.0], [0.03, 1.02, -2.0]])
    meter = MotionMeter()
    meter.step(flat, points)
    np.testing.assert_allclose(meter.step(flat, apply(truth, points)), truth, atol=1e-6)


def test_flow_that_contradicts_the_landmarks_is_not_believed() -> None:
    """The background stands still while the face, too plain to follow, moves."""
    frame = textured(240, 300, 2.0)
    points = face_points(at=(150, 90))
    meter = MotionMeter()
    meter.step(frame, points)
    np.testing.assert_allclose(meter.step(frame, points + 25), [[1, 0, 25], [0, 1, 25]], atol=1e-6)


def test_reset_begins_anew_even_with_another_size_of_frame() -> None:
    meter = MotionMeter()
    meter.step(textured(240, 300, 2.0), face_points(at=(150, 90)))
    meter.reset()
    assert (meter.step(textured(120, 160, 2.0), face_points(at=(80, 40))) == np.eye(2, 3)).all()


@pytest.mark.parametrize("place", [(-500, -500), (0, 0), (299, 239), (9000, 50)])
def test_a_face_at_or_beyond_the_frames_edge_is_no_error(place: tuple[int, int]) -> None:
    frame = textured(240, 300, 2.0)
    meter = MotionMeter()
    for _ in range(2):
        assert np.isfinite(meter.step(frame, face_points(at=place))).all()
