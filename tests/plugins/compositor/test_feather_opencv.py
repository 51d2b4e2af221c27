from __future__ import annotations

import importlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lipsync_compositor.feather_opencv import FeatherOpencv, FeatherOptions
from lipsync_compositor.plugin import lipsync_register_backends
from lipsync_core import landmarks as lm
from lipsync_core.backends import StageKind
from lipsync_core.stages import Compositor
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask

H, W = 90, 110


def _track(matrices: np.ndarray, side: int, eyes: float = 40.0, found: list[bool] | None = None) -> FaceTrack:
    """Return a track whose outer eye corners are `eyes` crop px apart."""
    n = len(matrices)
    landmarks = np.zeros((n, lm.COUNT, 2), np.float32)
    for row, matrix in enumerate(matrices):
        back = cv2.invertAffineTransform(matrix)
        corners = np.array([[10.0, 10.0], [10.0 + eyes, 10.0]]) @ back[:, :2].T + back[:, 2]
        landmarks[row, [lm.EYE_OUTER_LEFT, lm.EYE_OUTER_RIGHT]] = corners
    return FaceTrack(3, matrices, np.array(found or [True] * n), landmarks, side)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[[1.0, 0.0, -x], [0.0, 1.0, -y]]])


def _work(matrices, side=48, *, seed=0, mask=None, generated=None, found=None, eyes=40.0):
    rng = np.random.default_rng(seed)
    n = len(matrices)
    frames = FrameBatch(3, rng.integers(0, 256, (n, H, W, 3), dtype=np.uint8))
    if mask is None:
        mask = np.zeros((n, side, side), np.float32)
        mask[:, side // 3 : side - 4, 6 : side - 6] = 1.0
    if generated is None:
        generated = rng.random((n, side, side, 3), np.float32)
    track = _track(matrices, side, eyes, found)
    faces = AlignedFaces(track, np.zeros((n, side, side, 3), np.uint8))
    return frames, faces, MouthMask(mask), GeneratedFaces(generated)


def _composite(work, feather=0.05) -> np.ndarray:
    return FeatherOpencv(FeatherOptions(feather_eye_distances=feather)).composite(*work).pixels


affines = st.builds(
    lambda turn, size, stretch, x, y: np.array(
        [
            [size * np.cos(turn), size * np.sin(turn), 24 - size * (np.cos(turn) * x + np.sin(turn) * y)],
            [
                -size * stretch * np.sin(turn),
                size * stretch * np.cos(turn),
                24 - size * stretch * (-np.sin(turn) * x + np.cos(turn) * y),
            ],
        ]
    )[None],
    st.floats(-3.1, 3.1),
    st.floats(0.3, 3.0),
    st.floats(0.7, 1.4),
    st.floats(-20, W + 20),
    st.floats(-20, H + 20),
)


@settings(max_examples=80)
@given(affines, st.integers(0, 1000), st.floats(0, 0.3))
def test_pixels_outside_the_warped_mask_stay_byte_for_byte(matrices, seed, feather):
    work = _work(matrices, seed=seed)
    out = _composite(work, feather)
    reach = cv2.warpAffine(
        (work[2].generate[0] > 0).astype(np.float32),
        matrices[0],
        (W, H),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    # OpenCV places samples to 1/32 px: allow a mask's own edge pixel that much, no more
    outside = cv2.dilate(reach, np.ones((3, 3))) == 0
    np.testing.assert_array_equal(out[0][outside], work[0].pixels[0][outside])


@given(st.integers(-60, W + 20), st.integers(-60, H + 20), st.integers(0, 1000), st.floats(0, 0.5))
def test_a_whole_pixel_crop_touches_nothing_outside_its_mask(x, y, seed, feather):
    rng = np.random.default_rng(seed)
    mask = (rng.random((1, 48, 48)) < 0.4).astype(np.float32)
    work = _work(_shift(x, y), seed=seed, mask=mask)
    out = _composite(work, feather)[0]
    inside = np.zeros((H, W), bool)
    for row, column in zip(*np.nonzero(mask[0]), strict=True):
        if 0 <= row + y < H and 0 <= column + x < W:
            inside[row + y, column + x] = True
    np.testing.assert_array_equal(out[~inside], work[0].pixels[0][~inside])


@given(st.integers(-30, W), st.integers(-30, H), st.integers(0, 1000))
def test_generating_the_frame_itself_changes_it_by_at_most_one_level(x, y, seed):
    frames, faces, mask, _ = _work(_shift(x, y), seed=seed)
    crop = np.zeros((1, 48, 48, 3), np.float32)
    for row in range(48):
        for column in range(48):
            if 0 <= row + y < H and 0 <= column + x < W:
                crop[0, row, column] = frames.pixels[0, row + y, column + x] / 255
    out = _composite((frames, faces, mask, GeneratedFaces(crop)))
    assert np.abs(out.astype(int) - frames.pixels).max() <= 1


def test_deep_inside_the_mask_the_generated_pixels_stand():
    work = _work(_shift(20, 30))
    out = _composite(work)[0]
    deep = np.rint(work[3].pixels[0, 20:40, 12:36] * 255).astype(np.uint8)
    np.testing.assert_array_equal(out[50:70, 32:56], deep)


def test_the_edge_is_soft_inwards_over_the_feather():
    mask = np.zeros((1, 48, 48), np.float32)
    mask[0, :, 10:] = 1.0
    work = list(_work(_shift(20, 30), mask=mask, generated=np.ones((1, 48, 48, 3), np.float32)))
    work[0] = FrameBatch(3, np.zeros((1, H, W, 3), np.uint8))
    row = _composite(work, feather=0.2)[0, 54, 20:68, 0].astype(int)  # 0.2 × 40 px = 8 px
    np.testing.assert_array_equal(row[:10], 0)
    assert (np.diff(row[:20]) >= 0).all()
    assert 0 < row[10] < 60
    assert 80 < row[13] < 175
    assert row[18] == 255
    assert (_composite(work, feather=0.0)[0, 54, 30:60, 0] == 255).all()


def test_a_mask_between_zero_and_one_blends_in_proportion():
    mask = np.full((1, 48, 48), 0.25, np.float32)
    work = list(_work(_shift(20, 30), mask=mask, generated=np.ones((1, 48, 48, 3), np.float32)))
    work[0] = FrameBatch(3, np.zeros((1, H, W, 3), np.uint8))
    assert _composite(work)[0, 54, 44, 0] == round(0.25 * 255)


def test_values_are_rounded_to_the_nearest_level_and_clipped():
    for value, level in ((100.4, 100), (100.6, 101), (-30.0, 0), (300.0, 255)):
        generated = np.full((1, 48, 48, 3), value / 255, np.float32)
        assert _composite(_work(_shift(20, 30), generated=generated))[0, 60, 44, 0] == level


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0, 3.5])
def test_a_scaled_crop_lands_where_it_belongs(size):
    """A smooth picture in the frame, sampled into the crop and put back, is the frame again."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float32)
    frame = np.stack([100 + x, 60 + y, 200 - x / 2 - y / 2], axis=2)
    side = 96
    matrix = np.array([[size, 0.0, side / 2 - size * 55.3], [0.0, size, side / 2 - size * 44.7]])
    crop_y, crop_x = np.mgrid[0:side, 0:side].astype(np.float32)
    at_x, at_y = (crop_x - matrix[0, 2]) / size, (crop_y - matrix[1, 2]) / size
    crop = np.stack([100 + at_x, 60 + at_y, 200 - at_x / 2 - at_y / 2], axis=2) / 255
    mask = np.zeros((1, side, side), np.float32)
    mask[0, 8:-8, 8:-8] = 1.0
    frames = FrameBatch(3, np.rint(frame).astype(np.uint8)[None])
    track = _track(matrix[None], side)
    faces = AlignedFaces(track, np.zeros((1, side, side, 3), np.uint8))
    out = _composite((frames, faces, MouthMask(mask), GeneratedFaces(crop[None].astype(np.float32))))
    assert np.abs(out.astype(int) - frames.pixels).max() <= 1


def test_frames_without_a_face_and_masks_of_nothing_stay():
    matrices = np.repeat(_shift(20, 30), 3, 0)
    mask = np.ones((3, 48, 48), np.float32)
    mask[2] = 0
    work = _work(matrices, mask=mask, found=[False, True, True])
    work[1].track.landmarks[0] = np.nan
    out = _composite(work)
    np.testing.assert_array_equal(out[0], work[0].pixels[0])
    assert (out[1] != work[0].pixels[1]).any()
    np.testing.assert_array_equal(out[2], work[0].pixels[2])


def test_a_track_without_eyes_is_feathered_all_the_same():
    work = _work(_shift(20, 30))
    work[1].track.landmarks[:] = np.nan
    assert (_composite(work) != work[0].pixels).any()


@given(affines)
@settings(max_examples=20)
def test_inputs_are_not_written_to(matrices):
    work = _work(matrices)
    arrays = (work[0].pixels, work[1].pixels, work[2].generate, work[3].pixels, work[1].track.landmarks)
    for array in arrays:
        array.flags.writeable = False
    out = FeatherOpencv(FeatherOptions()).composite(*work)
    assert out.start == 3
    assert out.pixels.flags.writeable
    assert out.pixels.flags.c_contiguous


def test_the_batch_may_be_cut_anywhere():
    matrices = np.concatenate([_shift(20, 30), _shift(25, 31), 0.7 * _shift(-20, -10)])
    frames, faces, mask, generated = _work(matrices)
    whole = _composite((frames, faces, mask, generated))
    for k in range(3):
        one = (
            FrameBatch(3 + k, frames.pixels[k : k + 1]),
            AlignedFaces(faces.track[k : k + 1], faces.pixels[k : k + 1]),
            MouthMask(mask.generate[k : k + 1]),
            GeneratedFaces(generated.pixels[k : k + 1]),
        )
        np.testing.assert_array_equal(_composite(one)[0], whole[k])


def test_its_spec_leads_to_it_and_its_options_are_strict():
    (spec,) = [spec for spec in lipsync_register_backends() if spec.name == "feather-opencv"]
    assert spec.kind is StageKind.COMPOSITOR
    for path, thing in ((spec.factory, FeatherOpencv), (spec.options, FeatherOptions)):
        module, name = path.split(":")
        assert getattr(importlib.import_module(module), name) is thing
    typed: Compositor = FeatherOpencv(FeatherOptions())
    assert typed is not None
    for wrong in ({"feather": 1}, {"feather_eye_distances": -0.1}):
        with pytest.raises(ValidationError):
            FeatherOptions(**wrong)
