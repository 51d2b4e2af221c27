from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lipsync_core import landmarks as lm


def spots(points: Any, colour: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A grey picture [288, 288, 3] with a spot of 7 px at each of some points."""
    picture = np.full((288, 288, 3), 100, np.uint8)
    for x, y in np.rint(points).astype(int):
        picture[y - 3 : y + 4, x - 3 : x + 4] = colour
    return picture


def middle_of(picture: Any, near: Any) -> Any:
    """Where the spot is that lies within 12 px of a point, as its weighted middle (x, y)."""
    left, top = np.rint(near).astype(int) - 12
    weight = np.abs(picture[top : top + 25, left : left + 25].astype(float) - 100).sum(axis=2)
    y, x = np.mgrid[0:25, 0:25]
    return np.array([left + (x * weight).sum() / weight.sum(), top + (y * weight).sum() / weight.sum()])


@pytest.fixture
def two_faces() -> Any:
    """Landmarks of two faces, 16 px apart in different directions, at four places; the other 64 fill between."""
    rng = np.random.default_rng(0)
    first = np.float32(rng.uniform(90, 200, (68, 2)))
    first[0::17] = [(100, 100), (190, 100), (100, 190), (190, 190)]
    second = first + np.float32((8, -4))
    return first, second


@pytest.mark.parametrize("proportions", [-0.3, 0.0, 0.5, 1.0])
def test_both_faces_come_to_lie_on_the_landmarks_between_them(two_faces: Any, proportions: float) -> None:
    from mini_training.other_people import joint_face

    first, second = two_faces
    pictures = spots(first[0::17], (255, 0, 0)), spots(second[0::17], (0, 0, 255))
    for skin in (0.0, 1.0):
        joint = joint_face(pictures, two_faces, proportions, skin)
        for point in (first + proportions * (second - first))[0::17]:
            assert middle_of(joint, point) == pytest.approx(point, abs=1.0)


def test_the_joint_face_has_its_share_of_both_colours_and_keeps_its_border(two_faces: Any) -> None:
    from mini_training.other_people import joint_face

    pictures = np.full((288, 288, 3), 200, np.uint8), np.full((288, 288, 3), 100, np.uint8)
    assert (joint_face(pictures, two_faces, 0.4, 0.25) == 175).all()
    ramp = np.broadcast_to(np.linspace(0, 250, 288)[None, :, None], (288, 288, 3)).astype(np.uint8)
    joint = joint_face((ramp, ramp), two_faces, 0.5, 0.0)
    assert np.abs(joint[0].astype(int) - ramp[0]).max() <= 1
    assert np.abs(joint[-1].astype(int) - ramp[-1]).max() <= 1
    assert np.abs(joint[144].astype(int) - ramp[144]).max() > 2


def test_a_face_joined_with_itself_is_the_same(face_points: Any) -> None:
    from mini_training.other_people import joint_face

    picture = np.random.default_rng(0).integers(0, 256, (288, 288, 3), np.uint8)
    joint = joint_face((picture, picture), (face_points, face_points), 0.7, 0.0)
    assert (joint == picture).all()


def test_only_the_lips_take_another_colour(face_points: Any) -> None:
    from mini_training.other_people import Lips

    picture = np.full((288, 288, 3), 100, np.uint8)
    changed = Lips(np.array([1.2, 1.0, 0.5], np.float32), np.array([0, -9, 0], np.float32), 0.0)(picture, face_points)
    assert changed[186, 144].tolist() == pytest.approx([120, 91, 50], abs=3)
    beyond = np.ones((288, 288), bool)
    beyond[160:201, 96:193] = False
    assert (changed[beyond] == 100).all()
    assert (picture == 100).all()


def test_an_open_mouth_keeps_its_inside(face_points: Any) -> None:
    from mini_training.other_people import Lips

    points = face_points.copy()
    points[lm.OUTER_LIP][:, 1] = 180 + 2.5 * (points[lm.OUTER_LIP][:, 1] - 180)
    points[60:68, 1] = (180, 165, 160, 165, 180, 195, 200, 195)
    picture = np.full((288, 288, 3), 100, np.uint8)
    changed = Lips(np.full(3, 1.5, np.float32), np.zeros(3, np.float32), 0.0)(picture, points)
    assert np.abs(changed[175:186, 134:155].astype(int) - 100).max() <= 1
    assert changed[206, 144].min() > 130


def test_a_smile_lifts_the_corners(face_points: Any) -> None:
    from mini_training.other_people import Lips

    corner = face_points[[lm.MOUTH_LEFT]]
    picture = spots(corner, (255, 255, 255))
    plain = np.ones(3, np.float32), np.zeros(3, np.float32)
    assert (Lips(*plain, 0.0)(picture, face_points) == picture).all()
    smiling = Lips(*plain, 0.6)(picture, face_points)
    moved = middle_of(smiling, corner[0]) - corner[0]
    assert moved[0] < -2
    assert moved[1] < -2


def test_lips_are_the_same_from_the_same_seed_and_smile_only_when_told() -> None:
    from mini_training.other_people import MOST_SMILE, Lips

    one, two = (Lips.drawn(np.random.default_rng(4), smiling=True) for _ in range(2))
    assert (one.gain == two.gain).all()
    assert one.smile == two.smile
    smiles = [Lips.drawn(np.random.default_rng(seed), smiling=True).smile for seed in range(50)]
    assert -1 / 3 <= min(smiles) < 0 < max(smiles) <= MOST_SMILE
    assert all(Lips.drawn(np.random.default_rng(seed), smiling=False).smile == 0 for seed in range(5))


def test_a_face_without_a_mouth_stays_as_it_is(face_points: Any) -> None:
    from mini_training.other_people import Lips

    points = face_points.copy()
    points[48:68] = points[48]
    picture = np.full((288, 288, 3), 100, np.uint8)
    assert (Lips(np.full(3, 2, np.float32), np.zeros(3, np.float32), 0.5)(picture, points) == 100).all()


def test_neck_and_background_change_and_the_face_does_not(face_points: Any) -> None:
    from mini_training.other_people import Beyond

    points = face_points.copy()
    angle = np.pi * np.linspace(1, 0, 17)
    points[lm.JAW] = np.stack([144 + 70 * np.cos(angle), 120 + 110 * np.sin(angle)], axis=1)
    picture = np.full((288, 288, 3), 100, np.uint8)
    changed = Beyond(np.array([0.5, 1.0, 2.0], np.float32), np.array([0, 20, 0], np.float32))(picture, points)
    assert (changed[:222, 144] == 100).all()
    assert (changed[120:150, 90:200] == 100).all()
    for row, column in ((240, 144), (60, 40), (200, 250)):
        assert changed[row, column].tolist() == [50, 120, 200]
    dark = Beyond(np.zeros(3, np.float32), np.full(3, -50, np.float32))(picture, points)
    assert (dark[250] == 0).all()
