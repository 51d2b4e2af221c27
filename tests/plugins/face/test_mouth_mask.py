from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lipsync_core import landmarks as lm
from lipsync_core.errors import BackendError
from lipsync_core.types import AlignedFaces, FaceTrack
from lipsync_face.mouth_mask import MouthMasker, MouthMaskOptions

from .faces import face_points

SIDE = 256
EYE_WIDTH = 60.0  # of `face_points`, px


def draw(points: np.ndarray, side: int = SIDE, **options: float) -> np.ndarray:
    """Mask [n, side, side] of faces given in crop px; the frame lies 100 px further left and 50 px higher."""
    n = len(points)
    to_crop = np.repeat(np.array([[[1.0, 0, -100], [0, 1, -50]]]), n, axis=0)
    landmarks = (points + np.array([100, 50])).astype(np.float32)
    track = FaceTrack(0, to_crop, np.ones(n, np.bool_), landmarks, side)
    crops = AlignedFaces(track, np.zeros((n, side, side, 3), np.uint8))
    return MouthMasker(MouthMaskOptions(**options)).mask(crops).generate


def value(mask: np.ndarray, point: np.ndarray) -> float:
    x, y = np.rint(point).astype(int)
    return float(mask[y, x])


poses = st.tuples(st.floats(0, 20), st.floats(0.7, 1.3), st.floats(-0.5, 0.5), st.floats(120, 136), st.floats(90, 100))


def posed(pose: tuple[float, float, float, float, float]) -> np.ndarray:
    opening, scale, roll, x, y = pose
    turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return face_points(opening) @ turn.T + (x, y)


@settings(max_examples=60)
@given(poses)
def test_lips_and_chin_are_inside_eyes_and_nostrils_outside(pose: tuple[float, float, float, float, float]) -> None:
    face = posed(pose)
    mask = draw(face[None])[0]
    assert mask.min() >= 0
    assert mask.max() == 1
    assert all(value(mask, p) == 1 for p in face[lm.LIPS])
    assert value(mask, face[lm.CHIN]) == 1
    for group in (lm.EYE_LEFT, lm.EYE_RIGHT, lm.NOSE_BASE, lm.NOSE_BRIDGE, lm.BROW_LEFT):
        assert all(value(mask, p) < 0.5 for p in face[group])


@settings(max_examples=60)
@given(poses)
def test_it_is_one_piece_without_holes_and_its_edge_is_thin(pose: tuple[float, float, float, float, float]) -> None:
    mask = draw(posed(pose)[None])[0]
    assert cv2.connectedComponents((mask > 0.5).astype(np.uint8))[0] == 2
    assert cv2.connectedComponents((mask <= 0.5).astype(np.uint8))[0] == 2
    between = (mask > 0) & (mask < 1)
    assert 0 < between.sum() < 8 * np.sqrt(mask.sum())  # pixels of an outline, not of an area


@settings(max_examples=40)
@given(poses, st.floats(-1, 1), st.floats(-1, 1))
def test_it_moves_smoothly_with_the_landmarks(
    pose: tuple[float, float, float, float, float], dx: float, dy: float
) -> None:
    face = posed(pose)
    before, after = draw(np.array([face, face + np.array([dx, dy])]))
    # An outline of length L that moves by d changes at most about L × d pixels.
    assert np.abs(after - before).sum() <= (np.hypot(dx, dy) + 0.15) * 5 * np.sqrt(before.sum())


def test_options_are_in_eye_widths() -> None:
    face = face_points(at=(128, 100))
    chin = face[lm.CHIN]

    def bottom(margin: float) -> int:
        return int(np.flatnonzero(draw(face[None], chin_margin_eye_widths=margin)[0, :, round(chin[0])] > 0.5).max())

    assert bottom(0.0) == pytest.approx(chin[1], abs=1.5)
    assert bottom(0.3) - bottom(0.0) == pytest.approx(0.3 * EYE_WIDTH, abs=1.5)
    wide, narrow = (draw(face[None], jaw_margin_eye_widths=m)[0] for m in (0.2, 0.0))
    assert wide.sum() > narrow.sum()
    assert (narrow - wide > 0.5).sum() <= 5
    with pytest.raises(ValidationError):
        MouthMaskOptions(chin_margin_eye_widths=1.5)


def test_a_lip_pulled_up_to_the_nose_stays_inside() -> None:
    face = face_points(at=(128, 100))
    lift = face[lm.UPPER_LIP_TOP, 1] - face[lm.NOSE_BOTTOM, 1] - 2
    face[lm.LIPS] -= (0, lift)
    assert all(value(draw(face[None])[0], p) > 0.5 for p in face[lm.LIPS])


@pytest.mark.parametrize("place", [(-400, 0), (128, 240), (128, 900), (0, 0)])
def test_a_mask_partly_or_wholly_outside_the_crop_is_cut_off(place: tuple[float, float]) -> None:
    mask = draw((face_points(at=place))[None])[0]
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_missing_landmarks_are_named_with_a_cure() -> None:
    face = face_points()
    face[:17] = np.nan
    with pytest.raises(BackendError, match="landmarks of jaw") as caught:
        draw(face[None])
    assert "facemesh-opencv" in caught.value.cure
    unused = face_points(at=(128, 100))
    unused[lm.BROW_LEFT] = np.nan
    assert draw(unused[None]).max() == 1


def test_no_faces_give_no_masks() -> None:
    assert draw(np.zeros((0, 68, 2))).shape == (0, SIDE, SIDE)
