"""Where the mouth rests, and how a resting mouth is put into other frames."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.rest import RestingMouths, RestPlan
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, GeneratedFaces, MouthMask

SIDE = 120


@given(st.data())
def test_pauses_cross_no_scene_and_fade_towards_speech_only(data: st.DataObject) -> None:
    scene = np.repeat(
        *zip(*data.draw(st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 12)), min_size=1)), strict=True)
    )
    spoken = np.repeat(
        *zip(*data.draw(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), min_size=1)), strict=True)
    )
    n = min(len(scene), len(spoken))
    scene, spoken = scene[:n].astype(np.int64), spoken[:n]
    plan = RestPlan.of(spoken, scene, Fraction(data.draw(st.integers(5, 60))))
    assert ((plan.weight > 0) == (plan.pause >= 0)).all()
    assert not plan.weight[spoken | (scene < 0)].any()
    assert len(plan.anchors) == plan.pause.max(initial=-1) + 1
    for pause, anchor in enumerate(plan.anchors):
        (frames,) = np.nonzero(plan.pause == pause)
        assert (frames == np.arange(frames[0], frames[-1] + 1)).all()
        assert len(set(scene[frames])) == 1
        assert frames[0] <= anchor <= frames[-1]
        weight = plan.weight[frames]
        assert (weight == 1).any()
        for end, outside in ((weight, frames[0] - 1), (weight[::-1], frames[-1] + 1)):
            speech_follows = 0 <= outside < n and scene[outside] == scene[anchor]
            assert (end[0] < 1) == speech_follows


def test_the_fade_takes_an_eighth_of_a_second_at_any_rate() -> None:
    spoken = np.ones(200, np.bool_)
    spoken[50:150] = False
    for fps, frames in ((25, 3), (50, 6), (12, 2)):
        plan = RestPlan.of(spoken, np.zeros(200, np.int64), Fraction(fps))
        assert (plan.weight == 1).sum() == 100 - 2 * frames
        np.testing.assert_allclose(plan.weight[50 : 50 + frames], np.arange(1, frames + 1) / (frames + 1), atol=1e-6)
        np.testing.assert_array_equal(plan.weight, plan.weight[::-1])


def _track(matrices: list[NDArray[np.float64]], lips: NDArray[np.float64] | None = None, start: int = 0) -> FaceTrack:
    """Faces whose landmarks, in the frame, are a fixed face moved by each matrix [2, 3]."""
    face = np.full((lm.COUNT, 2), np.nan)
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    if lips is None:
        lips = np.column_stack([60 + 14 * np.cos(angles), 82 + 7 * np.sin(angles)])
    face[lm.LIPS] = lips
    face[lm.NOSE_BRIDGE] = [(60, 40), (60, 47), (60, 54), (60, 60)]
    face[lm.NOSE_BASE] = [(52, 64), (56, 65), (60, 66), (64, 65), (68, 64)]
    for point, place in zip(
        (lm.EYE_OUTER_LEFT, lm.EYE_INNER_LEFT, lm.EYE_INNER_RIGHT, lm.EYE_OUTER_RIGHT), (36, 52, 68, 84), strict=True
    ):
        face[point] = (place, 42)
    landmarks = np.stack([face @ m[:, :2].T + m[:, 2] for m in matrices]).astype(np.float32)
    n = len(matrices)
    return FaceTrack(start, np.tile(np.eye(2, 3), (n, 1, 1)), np.ones(n, np.bool_), landmarks, SIDE)


def _moved(turn: float = 0.0, size: float = 1.0, x: float = 0.0, y: float = 0.0) -> NDArray[np.float64]:
    matrix = cv2.getRotationMatrix2D((60.0, 60.0), np.degrees(turn), size)
    matrix[:, 2] += (x, y)
    return matrix


def _faces(track: FaceTrack, grey: int = 100) -> AlignedFaces:
    return AlignedFaces(track, np.full((len(track), SIDE, SIDE, 3), grey, np.uint8))


def _mask(n: int) -> MouthMask:
    generate = np.zeros((n, SIDE, SIDE), np.float32)
    generate[:, 50:118, 10:110] = 1
    return MouthMask(generate)


def _drawn() -> NDArray[np.float32]:
    """A generated face of level .4 with a dark mouth at (60, 82)."""
    picture = np.full((SIDE, SIDE, 3), 0.4, np.float32)
    cv2.ellipse(picture, (60, 82), (12, 5), 0, 0, 360, (0.1, 0.05, 0.05), -1)
    return picture


def _resting(weights: list[float]) -> RestingMouths:
    plan = RestPlan(np.array(weights, np.float32), np.zeros(len(weights), np.int64), np.array([0]))
    mouths = RestingMouths(plan, AudioFeatures(9, np.ones((1, 2, 3), np.float32)))
    mouths.keep(_faces(_track([_moved()])), GeneratedFaces(_drawn()[None]))
    return mouths


def _centre(picture: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where the dark mouth is."""
    dark = np.clip(0.39 - picture[..., 0], 0, None)
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.array([(dark * x).sum(), (dark * y).sum()]) / dark.sum()


@pytest.mark.parametrize("move", [{}, {"x": 5.5, "y": -3.25}, {"turn": 0.2}, {"size": 1.15}, {"turn": -0.3, "x": 4.0}])
def test_the_mouth_goes_where_the_head_goes(move: dict[str, float]) -> None:
    matrix = _moved(**move)
    track = _track([_moved(), matrix])
    shown = _resting([1, 1]).show(_faces(track, 102), _mask(2), None)
    expected = np.array([60, 82]) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(_centre(shown.pixels[1]), expected, atol=0.3)
    assert np.abs(shown.pixels[0] - _drawn()).max() < 0.01


def test_only_the_surroundings_of_the_lips_are_replaced_and_nothing_outside_the_mask() -> None:
    faces = AlignedFaces(_track([_moved(x=2)]), np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), np.uint8))
    shown = _resting([1]).show(faces, _mask(1), None).pixels[0]
    changed = np.abs(shown - faces.pixels[0].astype(np.float32) / 255).max(axis=2) > 1e-6
    assert changed[82, 62]
    rows, columns = np.nonzero(changed)
    # the lips reach 14 px × 7 px from (62, 82); a quarter of the eyes' distance of 48 px is added at most
    assert 82 - 7 - 13 <= rows.min() < rows.max() <= 82 + 7 + 13
    assert 62 - 14 - 13 <= columns.min() < columns.max() <= 62 + 14 + 13
    half = MouthMask(_mask(1).generate.copy())
    half.generate[:, :82] = 0
    shown = _resting([1]).show(faces, half, None).pixels[0]
    np.testing.assert_array_equal(shown[:82], faces.pixels[0, :82].astype(np.float32) / np.float32(255))


def test_an_open_mouth_of_the_source_is_covered() -> None:
    """The patch reaches around the frame's own lips too, which may be open far below the resting ones."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    track = _track([_moved()], np.column_stack([60 + 12 * np.cos(angles), 90 + 18 * np.sin(angles)]))
    pixels = np.full((1, SIDE, SIDE, 3), 102, np.uint8)
    cv2.ellipse(pixels[0], (60, 90), (10, 16), 0, 0, 360, (250, 0, 0), -1)
    shown = _resting([1]).show(AlignedFaces(track, pixels), _mask(1), None).pixels[0]
    assert np.abs(shown[95:107, 55:65] - 0.4).max() < 0.05


def test_the_mouth_takes_on_the_frames_light() -> None:
    """A frame brighter by .2 gets a mouth brighter by .2, and no rim."""
    shown = _resting([1]).show(_faces(_track([_moved()]), 153), _mask(1), None).pixels[0]
    np.testing.assert_allclose(shown[82, 60], np.array([0.3, 0.25, 0.25]), atol=0.02)
    assert np.abs(shown[95:110] - 0.6).max() < 0.02


def test_a_fade_is_a_blend_and_frames_that_speak_stay() -> None:
    faces, generated = _faces(_track([_moved()] * 3), 102), GeneratedFaces(np.full((3, SIDE, SIDE, 3), 0.8, np.float32))
    mouths = _resting([0, 0.25, 1])
    shown = mouths.show(faces, _mask(3), generated).pixels
    np.testing.assert_array_equal(shown[0], generated.pixels[0])
    np.testing.assert_allclose(shown[1], 0.75 * generated.pixels[1] + 0.25 * shown[2], atol=1e-6)
    assert (generated.pixels == np.float32(0.8)).all()
    speaking = GeneratedFaces(generated.pixels[:1])
    assert mouths.show(_faces(_track([_moved()])), _mask(1), speaking) is speaking


def test_without_landmarks_the_mask_is_filled_in_place() -> None:
    track = _track([_moved(), _moved(x=4)])
    track.landmarks[:] = np.nan
    mouths = _resting([1, 1])
    mouths.keep(_faces(track[:1]), GeneratedFaces(_drawn()[None]))
    shown = mouths.show(_faces(track), _mask(2), None).pixels
    np.testing.assert_allclose(shown[1][_mask(1).generate[0] == 1], _drawn()[_mask(1).generate[0] == 1], atol=1e-6)
    assert (shown[1, :50] == np.float32(100) / np.float32(255)).all()


@pytest.mark.parametrize("place", [(-400.0, 0.0), (30.0, 300.0)])
def test_a_mouth_beyond_the_crop_changes_nothing(place: tuple[float, float]) -> None:
    shown = _resting([1]).show(_faces(_track([_moved(x=place[0], y=place[1])])), _mask(1), None).pixels
    assert (shown == np.float32(100) / np.float32(255)).all()


def test_two_resting_mouths_are_held_and_no_more() -> None:
    plan = RestPlan(np.ones(3, np.float32), np.arange(3), np.arange(3))
    mouths = RestingMouths(plan, None)
    for frame in range(3):
        mouths.keep(_faces(_track([_moved()], start=frame)), GeneratedFaces(_drawn()[None] + frame / 10))
    shown: Any = mouths.show(_faces(_track([_moved()] * 2, start=1)), _mask(2), None)
    assert (shown.pixels[1] - shown.pixels[0])[82, 60].max() < 0.01  # each is brought to the frame's own light
    with pytest.raises(KeyError):
        mouths.show(_faces(_track([_moved()])), _mask(1), None)


def test_silence_is_handed_out_for_the_frame_asked_for() -> None:
    features = _resting([1]).features(57)
    assert features.start == 57
    assert (features.values == 1).all()
