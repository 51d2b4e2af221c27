"""References of scenes: which frame each output frame is shown."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, VideoInfo
from lipsync_denoiser.latentsync.chunks import references
from lipsync_denoiser.latentsync.usual import STRETCH, UsualMouths, openings, stretches, usual_row

from .tiny_latentsync import model_config

SIDE = 8


class Scenes:
    """A source of scenes of some lengths; frame f is of grey f % 251, its mouth open by `opening[f]` px."""

    video = VideoInfo(SIDE, SIDE, Fraction(25), 0, has_audio=False)
    scenes = ()

    def __init__(
        self, lengths: list[int], opening: NDArray[np.float64], job: NDArray[np.int64], side: int = SIDE
    ) -> None:
        self._lengths, self.opening, self.source_frames, self._side = lengths, opening, job, side
        self.found = np.ones(len(opening), np.bool_)
        self.asked: list[int] = []

    def tracks(self) -> Iterator[FaceTrack]:
        start = 0
        for length in self._lengths:
            landmarks = np.full((length, lm.COUNT, 2), 4, np.float32)
            landmarks[:, lm.LOWER_LIP_INNER, 1] += self.opening[start : start + length]
            still = np.tile(np.eye(2, 3), (length, 1, 1))
            yield FaceTrack(start, still, self.found[start : start + length], landmarks, self._side)
            start += length

    def faces(self, frames: NDArray[np.int64] | None = None) -> Iterator[AlignedFaces]:
        assert frames is not None
        self.asked += frames.tolist()
        for track in self.tracks():
            for frame in frames:
                if track.start <= frame < track.start + len(track):
                    row = int(frame) - track.start
                    pixels = np.full((1, self._side, self._side, 3), frame % 251, np.uint8)
                    yield AlignedFaces(track[row : row + 1], pixels)

    def audio(self) -> Iterator[AudioFeatures] | None:
        return None

    def target_audio(self) -> Iterator[AudioFeatures]:
        return iter(())


def test_a_scenes_frames_share_the_one_whose_mouth_is_open_as_usual() -> None:
    opening = np.array([0.0, 5, 1, 9, 2, 30, 10, 20.0])
    source = Scenes([5, 3], opening, np.array([0, 1, 2, 3, 4, 3, 2, 5, 6, 7]))
    usual = UsualMouths(source)
    assert source.asked == [4, 7]  # openings 2 and 20
    assert [int(usual.of(k)[0, 0, 0]) for k in range(10)] == [4] * 7 + [7] * 3


def test_only_what_the_job_uses_and_shows_a_face_counts() -> None:
    opening = np.array([9.0, 8, 1, 2, 3, 0])
    source = Scenes([6], opening, np.array([2, 3, 4, 5]))
    source.found[3] = False
    usual = UsualMouths(source)
    assert source.asked == [2]  # of 1, 3 and 0
    assert int(usual.of(0)[0, 0, 0]) == 2


def test_a_long_scene_has_several_each_from_its_own_stretch() -> None:
    count = 3 * STRETCH
    source = Scenes([count], np.random.default_rng(0).uniform(0, 9, count), np.arange(count))
    usual = UsualMouths(source)
    assert len(source.asked) == 3
    for stretch, frame in enumerate(source.asked):
        assert stretch * STRETCH <= frame < (stretch + 1) * STRETCH
        shown = {int(usual.of(k)[0, 0, 0]) for k in range(stretch * STRETCH, (stretch + 1) * STRETCH)}
        assert shown == {frame % 251}


def test_stretches_are_even_and_leave_nothing_out() -> None:
    for count, parts in ((0, 1), (1, 1), (STRETCH, 1), (240, 2), (10 * STRETCH + 7, 10)):
        cut = stretches(np.arange(count))
        assert len(cut) == parts
        assert np.concatenate(cut).tolist() == list(range(count))
        assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_references_are_not_held_in_memory() -> None:
    count, side = 40 * STRETCH, 64
    source = Scenes([count], np.random.default_rng(0).uniform(0, 9, count), np.arange(count), side)
    tracemalloc.start()
    try:
        usual = UsualMouths(source)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source.asked) == 40
    assert usual.of(0).shape == (side, side, 3)
    assert held < 40 * side * side * 3 / 4


def test_a_job_without_a_face_asks_for_nothing() -> None:
    source = Scenes([4], np.zeros(4), np.arange(4))
    source.found[:] = False
    UsualMouths(source)
    assert source.asked == []


def test_a_chunk_has_its_scenes_reference() -> None:
    source = Scenes([4, 4], np.arange(8.0), np.arange(8))
    usual = UsualMouths(source)
    (_, second) = source.tracks()
    faces = AlignedFaces(second[1:4], np.zeros((3, SIDE, SIDE, 3), np.uint8))
    shown, rows, whose = references(model_config(reference="scene"), faces, usual)
    assert shown.shape == (1, SIDE, SIDE, 3)
    assert int(shown[0, 0, 0, 0]) == 6
    assert rows.tolist() == [0]
    assert whose.tolist() == [0, 0, 0]
    alone: Any = references(model_config(), faces, usual)
    assert alone[1].tolist() == [0, 1, 2]


def test_openings_are_measured_in_the_crop() -> None:
    source = Scenes([3], np.array([2.0, 4, 6]), np.arange(3))
    (track,) = source.tracks()
    doubled = FaceTrack(0, 2 * track.frame_to_crop, track.found, track.landmarks, SIDE)
    assert openings(doubled, np.array([0, 2])) == pytest.approx([4, 12])
    assert usual_row(np.array([3.0, 1.0, 2.0])) == 2
