"""The part of a mask around the mouth: where it is, and what both paste-back backends do with it."""

from __future__ import annotations

import importlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_compositor.mouth_area import around_mouth
from lipsync_core import landmarks as lm
from lipsync_core.stages import Compositor
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask

SIDE = 128
EYES = 60.0  # crop px between the outer corners


def face(open_px: float = 0.0) -> NDArray[np.float32]:
    """Return an upright face's points [68, 2] in the crop: eyes at 40, nose at 72, lips from 82 on, chin at 118.

    An open mouth has jaw and lower lip lower.
    """
    points = np.zeros((lm.COUNT, 2), np.float32)
    points[lm.EYE_OUTER_LEFT], points[lm.EYE_OUTER_RIGHT] = (64 - EYES / 2, 40), (64 + EYES / 2, 40)
    points[lm.NOSE_BOTTOM], points[lm.CHIN] = (64, 72), (64, 118 + 0.8 * open_px)
    angle = np.linspace(np.pi, 3 * np.pi, 12, endpoint=False)
    points[lm.OUTER_LIP] = np.stack(
        [64 + 16 * np.cos(angle), 88 + open_px / 2 + (6 + open_px / 2) * np.sin(angle)], axis=1
    )
    return points


def turned(angle: float, scale: float, x: float, y: float) -> NDArray[np.float64]:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, sin, x], [-sin, cos, y]])


def in_frame(points: NDArray[np.float32], frame_to_crop: NDArray[np.float64]) -> NDArray[np.float32]:
    back = cv2.invertAffineTransform(frame_to_crop)
    return np.asarray(points @ back[:, :2].T + back[:, 2], np.float32)


@given(st.floats(-0.6, 0.6), st.floats(0.3, 3), st.floats(-40, 40), st.floats(-40, 40), st.floats(0, 20))
def test_it_holds_the_mouth_and_ends_before_nose_and_chin(
    angle: float, scale: float, x: float, y: float, gap: float
) -> None:
    matrix, points = turned(angle, scale, x, y), face(gap)
    area = around_mouth(np.ones((SIDE, SIDE), np.float32), matrix, in_frame(points, matrix))
    for place in points[lm.OUTER_LIP]:
        assert area[tuple(np.rint(place[::-1]).astype(int))] == 1
    rows = np.flatnonzero(area[:, 64])
    assert rows[0] > 72
    assert rows[-1] < points[lm.CHIN, 1]
    columns = np.flatnonzero(area[round(88 + gap / 2)])
    assert 16 + 0.2 * EYES < 64 - columns[0] < EYES


def test_it_turns_with_the_face() -> None:
    upright = around_mouth(np.ones((SIDE, SIDE), np.float32), turned(0, 1, 0, 0), face())
    turn = cv2.getRotationMatrix2D((64, 88), 30, 1.0)
    points = np.asarray(face() @ turn[:, :2].T + turn[:, 2], np.float32)
    area = around_mouth(np.ones((SIDE, SIDE), np.float32), turned(0, 1, 0, 0), points)
    expected = cv2.warpAffine(upright, turn, (SIDE, SIDE)) > 0.5
    assert ((area > 0) != expected).sum() < 0.03 * expected.sum()


def test_it_adds_nothing_to_the_mask() -> None:
    generate = np.zeros((SIDE, SIDE), np.float32)
    generate[80:90, 40:90] = 0.5
    area = around_mouth(generate, turned(0, 1, 0, 0), face())
    assert set(np.unique(area)) == {0.0, 0.5}
    assert not area[generate == 0].any()


@pytest.mark.parametrize("missing", [lm.CHIN, lm.NOSE_BOTTOM, lm.EYE_OUTER_LEFT, 50])
def test_without_the_landmarks_it_needs_the_mask_stays_whole(missing: int) -> None:
    points = face()
    points[missing] = np.nan
    generate = np.ones((SIDE, SIDE), np.float32)
    np.testing.assert_array_equal(around_mouth(generate, turned(0, 1, 0, 0), points), generate)


@pytest.mark.parametrize(
    "points", [np.zeros((68, 2)), np.full((68, 2), 1e7), -face()], ids=["point", "far", "mirrored"]
)
def test_no_face_of_any_shape_is_too_odd(points: NDArray[np.float64]) -> None:
    area = around_mouth(np.ones((SIDE, SIDE), np.float32), turned(0, 1, 0, 0), points.astype(np.float32))
    assert area.shape == (SIDE, SIDE)
    assert np.isin(area, (0, 1)).all()


@pytest.mark.parametrize("runtime", ["opencv", "torch"])
@settings(max_examples=15, deadline=None)
@given(turn=st.floats(-0.4, 0.4), scale=st.floats(0.6, 2.0), seed=st.integers(0, 99))
def test_cheeks_and_jaw_stay_byte_for_byte(runtime: str, turn: float, scale: float, seed: int) -> None:
    if runtime == "torch":
        pytest.importorskip("torch")
    module = importlib.import_module(f"lipsync_compositor.restore_{runtime}")
    rng = np.random.default_rng(seed)
    size = round(160 / scale)
    matrix = turned(turn, scale, 0, 0)
    matrix[:, 2] = (64, 64) - matrix[:, :2] @ (size / 2, size / 2)
    frames = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    points = np.stack([in_frame(face(gap), matrix) for gap in (0, 12)])
    track = FaceTrack(0, np.stack([matrix, matrix]), np.ones(2, np.bool_), points, SIDE)
    faces = AlignedFaces(track, np.zeros((2, SIDE, SIDE, 3), np.uint8))
    mask = MouthMask(np.ones((2, SIDE, SIDE), np.float32))
    white = GeneratedFaces(np.ones((2, SIDE, SIDE, 3), np.float32))
    chosen = {"region": "mouth"} | ({"device": "cpu"} if runtime == "torch" else {})
    backend: Compositor = getattr(module, f"Restore{runtime.title()}")(module.RestoreOptions(**chosen))
    out = backend.composite(FrameBatch(0, frames), faces, mask, white).pixels
    for row in range(2):
        area = around_mouth(mask.generate[row], matrix, points[row])
        reach = cv2.warpAffine(area, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        kept = cv2.dilate(reach, np.ones((3, 3))) == 0
        np.testing.assert_array_equal(out[row][kept], frames[row][kept])
        x, y = np.rint(points[row, lm.OUTER_LIP].mean(axis=0)).astype(int)
        assert (out[row, y, x] == 255).all()
