"""Scene changes are found wherever the batches are cut."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core.scenes import _thumbnail, split_scenes
from lipsync_core.types import FrameBatch

GREYS = (40, 200, 90)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 7), min_size=18, max_size=18),
)
def test_each_scene_is_one_stream_of_its_frames(lengths: list[int], sizes: list[int]) -> None:
    greys = np.repeat(GREYS[: len(lengths)], lengths).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 6, (len(greys), 20, 30, 3), np.uint8)
    frames = greys[:, None, None, None] + noise
    batches, at = [], 0
    for size in sizes:
        if at < len(frames):
            batches.append(FrameBatch(at, frames[at : at + size]))
            at += size
    scenes = [list(scene) for scene in split_scenes(batches)]
    assert [sum(len(b.pixels) for b in scene) for scene in scenes] == lengths
    start = 0
    for scene in scenes:
        for batch in scene:
            assert batch.start == start
            assert (batch.pixels == frames[start : start + len(batch.pixels)]).all()
            start += len(batch.pixels)


def test_no_frames_no_scenes() -> None:
    assert list(split_scenes([])) == []


def test_a_moving_camera_is_no_cut() -> None:
    wall = np.random.default_rng(0).integers(90, 160, (8, 60, 3), np.uint8).repeat(12, axis=0).repeat(12, axis=1)
    frames = np.stack([np.ascontiguousarray(wall[:, i * 6 : i * 6 + 320]) for i in range(20)])
    assert len([list(scene) for scene in split_scenes([FrameBatch(0, frames)])]) == 1


@pytest.mark.parametrize("size", [(1920, 1080), (641, 1283), (361, 289), (160, 90), (64, 48), (2001, 1125)])
def test_a_thumbnail_is_the_mean_of_what_it_shows(size: tuple[int, int]) -> None:
    width, height = size
    coarse = np.random.default_rng(width).integers(0, 256, (5, 9, 3), np.uint8)
    frame = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    shown = _thumbnail(frame)
    mean = cv2.cvtColor(
        np.asarray(cv2.resize(frame, shown.shape[1::-1], interpolation=cv2.INTER_AREA)), cv2.COLOR_RGB2BGR
    )
    assert shown.shape == (max(1, round(height * 160 / width)), 160, 3)
    assert np.abs(shown.astype(int) - mean).mean() < 2
