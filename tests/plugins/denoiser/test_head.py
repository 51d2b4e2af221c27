from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core import landmarks as lm
from lipsync_denoiser.head import (
    GENERIC_FACE,
    RIGID,
    HeadPose,
    angle_between,
    fit_pose,
    personal_template,
    to_head,
    to_image,
)

from .drawing import poses, rotation

angles = st.floats(-30, 30)


def test_the_generic_face_is_symmetric_and_one_eye_distance_wide():
    width = GENERIC_FACE[lm.EYE_OUTER_RIGHT] - GENERIC_FACE[lm.EYE_OUTER_LEFT]
    np.testing.assert_allclose(width, [1.0, 0.0, 0.0], atol=2e-3)
    np.testing.assert_allclose(GENERIC_FACE[lm.JAW][::-1] * [-1, 1, 1], GENERIC_FACE[lm.JAW], atol=1e-12)
    chin, nose = GENERIC_FACE[lm.CHIN], GENERIC_FACE[lm.NOSE_TIP]
    assert chin[1] > 0.5, "y points down"
    assert nose[2] < GENERIC_FACE[lm.EYE_OUTER_LEFT][2], "depth grows away from the camera"
    assert (np.abs(GENERIC_FACE).sum(axis=1) > 0).sum() == lm.COUNT - 1, "only the origin is at the origin"


@given(angles, angles, st.floats(-60, 60), st.floats(20, 400), st.floats(-500, 2000))
def test_the_fit_recovers_a_pose(pitch, yaw, roll, scale, place):
    pose = poses(1, scale, (place, 100.0), pitch=pitch, yaw=yaw, roll=roll)
    points = to_image(GENERIC_FACE[None, :, :2], pose)
    fitted = fit_pose(points)
    assert angle_between(fitted.rotation, pose.rotation)[0, 0] < 1e-3
    np.testing.assert_allclose(fitted.scale, pose.scale, rtol=1e-6)
    np.testing.assert_allclose(fitted.origin, pose.origin, atol=1e-5 * scale)


@given(angles, angles, angles, st.integers(0, 1000))
def test_the_head_frame_is_undone_exactly_for_any_landmarks(pitch, yaw, roll, seed):
    head = GENERIC_FACE[None, :, :2] + np.random.default_rng(seed).normal(0, 0.1, (1, lm.COUNT, 2))
    pose = poses(1, 77.0, (300.0, 200.0), pitch=pitch, yaw=yaw, roll=roll)
    np.testing.assert_allclose(to_head(to_image(head, pose), pose), head, atol=1e-9)


def test_detector_noise_moves_the_pose_little():
    rng = np.random.default_rng(0)
    pose = poses(50, 100.0, (200.0, 200.0), pitch=8, yaw=-15, roll=5)
    points = to_image(np.repeat(GENERIC_FACE[None, :, :2], 50, 0), pose) + rng.normal(0, 0.5, (50, lm.COUNT, 2))
    fitted = fit_pose(points)
    off = np.diagonal(angle_between(fitted.rotation, pose.rotation))
    assert off.mean() < 2.0
    assert np.abs(fitted.scale / pose.scale - 1).max() < 0.02


def test_a_personal_template_explains_a_person_who_is_not_generic():
    rng = np.random.default_rng(3)
    person = GENERIC_FACE.copy()
    person[list(RIGID), :2] += rng.normal(0, 0.02, (len(RIGID), 2))
    rotations = np.stack([rotation(p, y, 0) for p in (-8, 0, 8) for y in (-12, 0, 12)])
    pose = HeadPose(np.full(9, 90.0), rotations, np.full((9, 2), 150.0))
    turned = np.einsum("nij,pj->npi", rotations, person)
    points = 90.0 * turned[..., :2] + 150.0

    def misfit(template):
        fitted = fit_pose(points, template)
        drawn = np.einsum("nij,pj->npi", fitted.rotation, template[list(RIGID)])[..., :2]
        drawn = fitted.scale[:, None, None] * drawn + fitted.origin[:, None]
        return np.abs(drawn - points[:, list(RIGID)]).mean()

    assert misfit(personal_template(points)) < 0.35 * misfit(GENERIC_FACE)
    own = personal_template(points)
    assert abs(np.linalg.norm(own[lm.EYE_OUTER_RIGHT, :2] - own[lm.EYE_OUTER_LEFT, :2]) - 1.0) < 1e-9
    assert pose.scale[0] == 90.0


def test_a_long_video_is_fitted_in_blocks_to_the_same_poses(monkeypatch):
    pose = poses(7, 50.0, (90.0, 90.0), yaw=10)
    points = to_image(np.repeat(GENERIC_FACE[None, :, :2], 7, 0), pose)
    whole = fit_pose(points)
    monkeypatch.setattr("lipsync_denoiser.head._BLOCK", 3)
    np.testing.assert_array_equal(fit_pose(points).rotation, whole.rotation)


def test_the_angle_between_turned_heads():
    first = np.stack([rotation(0, 0, 0), rotation(10, 0, 0)])
    second = np.stack([rotation(0, 25, 0)])
    np.testing.assert_allclose(angle_between(first, second)[0], [25.0], atol=1e-6)
    np.testing.assert_allclose(np.diagonal(angle_between(first, first)), 0.0, atol=1e-5)
