from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core import landmarks as lm
from lipsync_face.geometry import LatentSyncGeometry, NativeGeometry, apply, fit_similarity, invert

from .faces import face_points

angles = st.floats(-3.1, 3.1)
scales = st.floats(0.05, 20)
shifts = st.tuples(st.floats(-3000, 3000), st.floats(-3000, 3000))


@given(angles, scales, shifts, st.integers(0, 2**32 - 1), st.integers(2, 68))
def test_the_fit_recovers_any_similarity(
    angle: float, scale: float, shift: tuple[float, float], seed: int, count: int
) -> None:
    points = np.random.default_rng(seed).normal(0, 100, (count, 2))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    truth = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])
    fitted = fit_similarity(points, apply(truth, points))
    np.testing.assert_allclose(fitted, truth, atol=1e-6 * max(scale, 1))
    np.testing.assert_allclose(apply(invert(fitted), apply(fitted, points)), points, atol=1e-6)


def test_a_mirrored_template_is_fitted_by_a_rotation() -> None:
    points = face_points()
    turn = fit_similarity(points, points * (-1, 1))[:, :2]
    assert np.linalg.det(turn) > 0


@pytest.mark.parametrize("resolution", [256, 512])
def test_latentsyncs_matrices(shared_reference: Path, resolution: int) -> None:
    golden = np.load(shared_reference / "align.npz")
    geometry = LatentSyncGeometry(resolution)
    fitted = fit_similarity(golden[f"seq{resolution}.landmarks3"], geometry.template)
    # The reference computes in float32: its translations of some hundred px are good to 2e-4.
    np.testing.assert_allclose(fitted, golden[f"seq{resolution}.matrices_nosmooth"], atol=3e-4)


def test_latentsyncs_crop(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "align.npz")
    frame = cv2.cvtColor(cv2.imread(str(shared_reference / "align_image.png")), cv2.COLOR_BGR2RGB)
    geometry = LatentSyncGeometry(256)
    crop = geometry.cut(frame, geometry.compose(golden["r256.affine_matrix"].astype(np.float64)), 256)
    error = np.abs(crop.astype(int) - golden["r256.face_uint8_chw"].transpose(1, 2, 0))
    # OpenCV 4 rounds positions to 1/32 px; OpenCV 5 does not.
    most, mean = (1, 0.01) if int(cv2.__version__.split(".")[0]) >= 5 else (4, 0.15)
    assert error.max() <= most
    assert error.mean() < mean


def test_latentsyncs_three_points_land_on_the_template() -> None:
    """Brows and nose in the template's proportions, turned, enlarged and moved, land where the reference puts them."""
    template = np.array([(17.0, 20.0), (58.0, 20.0), (37.5, 40.0)])
    to_frame = np.array([[1.9, -0.7, 300], [0.7, 1.9, 200]])
    landmarks = face_points()
    for group, place in zip((lm.BROW_LEFT, lm.BROW_RIGHT, [29, 30, 31, 35]), template, strict=True):
        landmarks[group] += place - landmarks[group].mean(axis=0)
    landmarks = apply(to_frame, landmarks)
    matrices, side = LatentSyncGeometry(512).fit(landmarks[None])
    assert side == 512
    landed = apply(matrices[0], apply(to_frame, template))
    # 420 × 560 stretched to 512 × 512; a pixel's centre is at +0.5.
    wanted = (template * 5.6 + 0.5) * (512 / 420, 512 / 560) - 0.5
    np.testing.assert_allclose(landed, wanted, atol=1e-6)


@given(st.integers(-400, 400), st.integers(-400, 400))
def test_latentsyncs_crop_does_not_depend_on_what_is_cut_away(dx: int, dy: int) -> None:
    """Only the part that is seen is converted: the same as warping the whole frame, wherever the box lies."""
    geometry = LatentSyncGeometry(64)
    frame = np.random.default_rng(5).integers(0, 255, (90, 120, 3), np.uint8)
    matrices, side = geometry.fit(face_points()[None] * 0.5 + (dx, dy))
    crop = geometry.cut(frame, matrices[0], side)
    wide = cv2.copyMakeBorder(frame, 500, 500, 500, 500, cv2.BORDER_CONSTANT, value=(127, 127, 127))
    moved = matrices[0].copy()
    moved[:, 2] -= moved[:, :2] @ (500, 500)
    # OpenCV's warp rounds positions to 1/32 px, a little differently from another corner.
    assert np.abs(crop.astype(int) - geometry.cut(wide, moved, side)).mean() < 2


def test_a_zoomed_crop_is_the_plain_one_enlarged_about_a_point_near_the_mouth() -> None:
    landmarks = face_points()[None]
    plain, side = LatentSyncGeometry(64).fit(landmarks)
    zoomed, _ = LatentSyncGeometry(64, 1.5).fit(landmarks)
    still = np.array([0.5, 0.6]) * side - 0.5  # pixel centres
    there = apply(plain[0], landmarks[0])
    np.testing.assert_allclose(apply(zoomed[0], landmarks[0]) - still, 1.5 * (there - still), atol=1e-9)
    frame = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 255, (400, 400, 3), np.uint8), (0, 0), 12)
    whole = LatentSyncGeometry(64).cut(frame, plain[0], side)
    crop = LatentSyncGeometry(64, 1.5).cut(frame, zoomed[0], side)
    shrink = np.array([[1 / 1.5, 0, 0], [0, 1 / 1.5, 0]])
    shrink[:, 2] = still * (1 - 1 / 1.5)
    enlarged = cv2.warpAffine(whole, shrink, (64, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert np.abs(crop.astype(int) - enlarged)[4:-4, 4:-4].mean() < 2


def test_a_latentsync_crop_outside_the_frame_is_grey() -> None:
    geometry = LatentSyncGeometry(64)
    matrices, side = geometry.fit(face_points()[None] + (5000, 5000))
    assert (geometry.cut(np.zeros((50, 50, 3), np.uint8), matrices[0], side) == 127).all()


@given(st.integers(-150, 400), st.integers(-150, 300), st.floats(0.05, 2))
def test_a_native_crop_is_the_frames_own_pixels(dx: int, dy: int, size: float) -> None:
    frame = np.random.default_rng(1).integers(0, 255, (144, 180, 3), np.uint8)
    matrices, side = NativeGeometry().fit(face_points()[None] * size + (dx, dy))
    crop = NativeGeometry().cut(frame, matrices[0], side)
    x, y = (-matrices[0, :, 2]).astype(int)
    rows, columns = np.clip(np.arange(y, y + side), 0, 143), np.clip(np.arange(x, x + side), 0, 179)
    assert (crop == frame[rows[:, None], columns]).all()


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(0, 500), st.floats(0.4, 1.6), st.floats(-0.6, 0.6)), min_size=1))
def test_native_boxes_hold_the_face_with_room(places: list[tuple[float, float, float, float]]) -> None:
    tracks = []
    for x, y, size, roll in places:
        turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]) * size
        tracks.append(face_points() @ turn.T + (x, y))
    landmarks = np.array(tracks)
    matrices, side = NativeGeometry().fit(landmarks)
    assert side % 2 == 0
    assert (matrices[:, :, :2] == np.eye(2)).all()
    assert (matrices == np.rint(matrices)).all()
    inside = apply(matrices, landmarks)
    largest = landmarks.max(axis=1) - landmarks.min(axis=1)
    assert side >= 1.6 * largest.max()
    room = inside.min(), side - 1 - inside.max()
    assert min(room) >= 0.1 * largest.max()
    chin = inside[:, lm.CHIN]
    upright = np.abs([roll for *_, roll in places]) < 0.05
    assert (side - chin[upright, 1] > 0.35 * largest[upright].max(axis=1)).all()


@pytest.mark.parametrize("geometry", [NativeGeometry(), LatentSyncGeometry(64)])
def test_frames_without_a_face_do_not_touch_the_others_crops(geometry: NativeGeometry | LatentSyncGeometry) -> None:
    faces = np.stack([face_points() + np.array((3 * i, i)) for i in range(5)]).astype(np.float32)
    gappy = np.full((9, 68, 2), np.nan, np.float32)
    rows = [1, 2, 4, 7, 8]
    gappy[rows] = faces
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lipsync_face.geometry._BLOCK", 2)
        matrices, side = geometry.fit(gappy)
    wanted, wanted_side = geometry.fit(faces)
    assert side == wanted_side
    np.testing.assert_allclose(matrices[rows], wanted, atol=1e-9)
    assert not np.delete(matrices, rows, axis=0).any()


def test_a_shot_without_any_face_is_fitted_too() -> None:
    matrices, side = NativeGeometry().fit(np.full((3, 68, 2), np.nan, np.float32))
    assert (matrices == 0).all()
    assert side == 2
