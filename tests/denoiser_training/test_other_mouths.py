from __future__ import annotations

from typing import Any

import numpy as np


def drawn(seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A stored picture of skin, its grain alike in all colours, with a red mouth."""
    grain = np.random.default_rng(seed).integers(-4, 5, (288, 288, 1))
    picture = np.clip(np.array([200, 160, 140]) + grain, 0, 255).astype(np.uint8)
    y, x = np.mgrid[0:288, 0:288]
    picture[((x - 144) / 40) ** 2 + ((y - 180) / 12) ** 2 < 1] = (170, 80, 80)
    return picture


def test_only_the_mouth_and_what_is_around_it_changes(face_points: Any) -> None:
    from mini_training.other_mouths import other_mouth

    picture = drawn()
    for seed in range(20):
        changed = other_mouth(picture, face_points, np.random.default_rng(seed))
        rows, columns = np.nonzero((changed != picture).any(axis=2))
        assert len(rows) > 100
        # The mouth is 80 px wide, from 104 to 184.
        assert rows.min() >= 180 - 0.8 * 80
        assert rows.max() <= 180 + 1.1 * 80
        assert columns.min() >= 104 - 0.8 * 80
        assert columns.max() <= 184 + 0.8 * 80
    assert (picture == drawn()).all()


def test_lips_are_parted_over_teeth_and_a_dark_mouth(face_points: Any) -> None:
    from mini_training.other_mouths import PARTED, other_mouth

    middle = np.stack(
        [other_mouth(drawn(), face_points, np.random.default_rng(seed))[150:240, 144] for seed in range(200)]
    ).astype(int)
    darkest, lightest = middle.min(axis=(1, 2)), middle.min(axis=2).max(axis=1)
    assert abs((darkest < 60).mean() - PARTED) < 0.15  # the widest are not always dark: teeth may fill them
    assert (lightest > 165).mean() > 0.15  # lighter than the skin: teeth


def test_the_same_seed_gives_the_same_mouth(face_points: Any) -> None:
    from mini_training.other_mouths import other_mouth

    one, two, other = (other_mouth(drawn(), face_points, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert (one == two).all()
    assert (one != other).any()


def test_a_face_without_a_mouth_stays_as_it_is(face_points: Any) -> None:
    from mini_training.other_mouths import other_mouth

    points = face_points.copy()
    points[48:68] = points[48]
    assert (other_mouth(drawn(), points, np.random.default_rng(0)) == drawn()).all()
