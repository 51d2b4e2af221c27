"""Edges, grain and light for a face of low resolution."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_compositor.detail import Finish, finish
from lipsync_compositor.restore_opencv import RestoreOpencv, RestoreOptions
from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask

H, W, CORNER = 240, 200, (40, 90)
GRAIN = 6.0  # levels, of the drawn skin


def points() -> NDArray[np.float32]:
    """Landmarks [68, 2] px: eyes 100 px apart, cheeks of 32 px at (55, 107) and (145, 107)."""
    result = np.full((lm.COUNT, 2), np.nan, np.float32)
    result[lm.EYE_OUTER_LEFT], result[lm.EYE_OUTER_RIGHT] = (50, 70), (150, 70)
    result[lm.MOUTH_LEFT], result[lm.MOUTH_RIGHT] = (60, 144), (140, 144)
    result[lm.NOSE_TIP] = (100, 110)
    return result


def skin(grain: float = GRAIN, seed: int = 0) -> NDArray[np.uint8]:
    """A frame of one skin colour with white noise of that deviation, the same in all colours."""
    noise = np.random.default_rng(seed).normal(0, grain, (H, W, 1))
    return np.clip(np.rint(np.array([170, 130, 110]) + noise), 0, 255).astype(np.uint8)


def box() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A generated face without grain, and its alpha, which rises over 10 px."""
    face = np.full((130, 120, 3), (170, 130, 110), np.float32)
    inside = np.zeros((130, 120), np.uint8)
    inside[1:-1, 1:-1] = 1
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    return face, np.minimum(depth / 10, 1).astype(np.float32)


def detail(picture: NDArray[np.floating]) -> float:
    return float(cv2.Laplacian(picture[20:-20, 20:-20].astype(np.float32), cv2.CV_32F).std())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_face_without_grain_gets_the_cheeks(scale: float) -> None:
    face, soft = box()
    finish(face, soft, skin(), CORNER, points(), scale, Finish(0, 1, 0))
    assert detail(face) == pytest.approx(detail(skin()), rel=0.15)
    assert face.mean(axis=(0, 1)) == pytest.approx([170, 130, 110], abs=1)


def test_it_gets_only_what_it_lacks() -> None:
    for own, wanted in ((GRAIN, 0.0), (GRAIN * 0.6, 0.8), (2 * GRAIN, 0.0)):
        face, soft = box()
        before = face + np.random.default_rng(5).normal(0, own, (130, 120, 1)).astype(np.float32)
        face = before.copy()
        finish(face, soft, skin(), CORNER, points(), 1.0, Finish(0, 1, 0))
        # Grain is what is left of white noise above the blur: about .85 of it.
        assert (face - before).std() == pytest.approx(wanted * 0.85 * GRAIN, rel=0.12, abs=1.6)


def test_a_line_across_the_cheek_is_not_laid_over_the_mouth() -> None:
    frame = skin()
    frame[100:103] = 20
    face, soft = box()
    finish(face, soft, frame, CORNER, points(), 1.0, Finish(0, 1, 0))
    assert np.abs(face - (170, 130, 110)).max() < 4 * GRAIN


def test_another_frame_has_other_grain() -> None:
    made = []
    for seed in (0, 1):
        face, soft = box()
        finish(face, soft, skin(seed=seed), CORNER, points(), 1.0, Finish(0, 1, 0))
        made.append(face)
    moved = np.abs(made[0] - made[1]).mean()
    assert moved == pytest.approx(np.abs(skin(seed=0).astype(float) - skin(seed=1)).mean(), rel=0.2)


@pytest.mark.parametrize("missing", [lm.EYE_OUTER_LEFT, lm.MOUTH_RIGHT, "outside", "small"])
def test_without_a_cheek_there_is_no_grain(missing: int | str) -> None:
    face, soft = box()
    before, marks = face.copy(), points()
    if missing == "outside":
        marks += 500
    elif missing == "small":
        marks = 100 + (marks - 100) / 20
    else:
        marks[missing] = np.nan
    finish(face, soft, skin(), CORNER, marks, 1.0, Finish(0, 1, 0))
    assert (face == before).all()


def test_sharpening_makes_edges_steeper_and_leaves_even_skin() -> None:
    face, soft = box()
    face[65:] -= 60
    face = cv2.GaussianBlur(face, (0, 0), 2.0)
    before = face.copy()
    finish(face, soft, skin(), CORNER, points(), 1.5, Finish(0.7, 0, 0))
    steepest = [np.abs(np.diff(picture[:, 60, 0])).max() for picture in (before, face)]
    assert steepest[1] > 1.1 * steepest[0]
    assert np.abs(face[:40] - before[:40]).max() < 1e-3


def test_the_light_of_the_source_is_taken_over_but_not_another_shape() -> None:
    frame = skin(0).astype(np.float32)
    frame += np.linspace(-12, 12, W, dtype=np.float32)[None, :, None] + np.array([6, 0, -6])
    face, soft = box()
    finish(face, soft, np.clip(frame, 0, 255).astype(np.uint8), CORNER, points(), 1.0, Finish(0, 0, 1))
    below = frame[CORNER[1] : CORNER[1] + 130, CORNER[0] : CORNER[0] + 120]
    assert np.abs(face - below).max() < 2.5
    frame = skin(0)
    frame[200:] = 0  # a dark background below the jaw, along a fifth of the ring
    face, soft = box()
    finish(face, soft, frame, CORNER, points(), 1.0, Finish(0, 0, 1))
    assert np.abs(face - (170, 130, 110)).max() < 24


def test_colours_become_the_sources_and_brightness_stays() -> None:
    """A violet mouth in pale skin over a red one in tan skin."""
    rng = np.random.default_rng(4)
    lips = (slice(150, 180), slice(70, 130))
    frame = skin(0)
    frame[lips] = (170, 70, 60)
    face, soft = box()
    face[:] = (175, 140, 125)
    lips_of_face = (slice(60, 90), slice(30, 90))
    face[lips_of_face] = (150, 60, 90)
    face += rng.normal(0, 2, face.shape).astype(np.float32)
    before = face.copy()
    finish(face, soft, frame, CORNER, points(), 1.0, Finish(0, 0, 0, 1))
    below = frame[CORNER[1] : CORNER[1] + 130, CORNER[0] : CORNER[0] + 120].astype(np.float32)
    views = before, face, below
    for part in (lips_of_face, slice(0, 50)):
        ours, now, wanted = (cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb)[part][..., 1:].mean(axis=(0, 1)) for p in views)
        assert np.linalg.norm(now - wanted) < 0.5 * np.linalg.norm(ours - wanted)
    luma = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (before, face)]
    assert np.abs(luma[1] - luma[0]).max() < 0.5


def test_a_source_of_many_colours_does_not_blow_up_a_plain_face() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (H, W, 3), np.uint8)
    face, soft = box()
    before = face + np.random.default_rng(2).normal(0, 3, face.shape).astype(np.float32)
    face = before.copy()
    finish(face, soft, frame, CORNER, points(), 1.0, Finish(0, 0, 0, 1))
    ranges = [np.ptp(cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb)[..., 1:], axis=(0, 1)) for p in (before, face)]
    assert (ranges[1] < 2.5 * ranges[0]).all()


def test_both_backends_finish_alike_and_touch_nothing_outside_the_mask() -> None:
    pytest.importorskip("torch")
    from lipsync_compositor.restore_torch import RestoreOptions as TorchOptions
    from lipsync_compositor.restore_torch import RestoreTorch

    side = 64
    matrix = np.array([[[0.5, 0.0, -18.0], [0.0, 0.5, -40.0]]])
    generate = np.zeros((1, side, side), np.float32)
    generate[:, 20:60, 8:56] = 1
    smooth = cv2.GaussianBlur(np.random.default_rng(2).random((side, side, 3), np.float32), (0, 0), 2.0)[None]
    frames = FrameBatch(0, np.stack([skin()]))
    track = FaceTrack(0, matrix, np.array([True]), points()[None], side)
    faces = AlignedFaces(track, np.zeros((1, side, side, 3), np.uint8))
    work = (frames, faces, MouthMask(generate), GeneratedFaces(smooth))
    chosen = {"sharpen": 0.5, "grain": 1.0, "light": 1.0, "colour": 1.0}
    ours = RestoreOpencv(RestoreOptions.model_validate(chosen)).composite(*work).pixels
    theirs = RestoreTorch(TorchOptions.model_validate(chosen | {"device": "cpu"})).composite(*work).pixels
    plain = RestoreOpencv(RestoreOptions.model_validate({})).composite(*work).pixels
    assert np.abs(ours.astype(int) - theirs).max() <= 2  # OpenCV and torch place samples a little apart
    assert (ours != plain).any()
    untouched = (plain == frames.pixels).all(axis=3)
    assert (ours[untouched] == frames.pixels[untouched]).all()
