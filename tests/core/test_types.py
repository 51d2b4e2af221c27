"""The checks every value between stages passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core import landmarks as lm
from lipsync_core.types import (
    AlignedFaces,
    AudioBlock,
    AudioFeatures,
    FaceTrack,
    FrameBatch,
    GeneratedFaces,
    MouthMask,
)


def make_track(n: int, crop_size: int = 8, start: int = 0) -> FaceTrack:
    return FaceTrack(
        start,
        np.tile(np.eye(2, 3), (n, 1, 1)),
        np.ones(n, bool),
        np.arange(n * lm.COUNT * 2, dtype=np.float32).reshape(n, lm.COUNT, 2),
        crop_size,
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AudioBlock(0, np.zeros(4, np.float64)), TypeError, "AudioBlock.samples must be float32"),
        (lambda: AudioBlock(0, np.zeros((4, 2), np.float32)), ValueError, r"shape \[\*\]"),
        (lambda: AudioFeatures(0, np.zeros((4, 2), np.float32)), ValueError, r"shape \[\*, \*, \*\]"),
        (lambda: FrameBatch(0, np.zeros((1, 4, 4, 4), np.uint8)), ValueError, r"\[\*, \*, \*, 3\], got \[1, 4, 4, 4\]"),
        (lambda: FrameBatch(0, np.zeros((1, 4, 8, 3), np.uint8)[:, :, ::2]), ValueError, "C-contiguous"),
        (lambda: AlignedFaces(make_track(2), np.zeros((2, 9, 9, 3), np.uint8)), ValueError, r"\[2, 8, 8, 3\]"),
        (lambda: AlignedFaces(make_track(2), np.zeros((3, 8, 8, 3), np.uint8)), ValueError, r"\[2, 8, 8, 3\]"),
        (lambda: MouthMask(np.zeros((2, 8, 8), bool)), TypeError, "float32, got bool"),
        (lambda: GeneratedFaces(np.zeros((2, 8, 8, 3), np.uint8)), TypeError, "float32, got uint8"),
        (lambda: make_track(1, crop_size=0), ValueError, "crop_size must be positive"),
        (
            lambda: FaceTrack(0, np.zeros((2, 2, 3)), np.ones(3, bool), np.zeros((3, lm.COUNT, 2), np.float32), 8),
            ValueError,
            r"frame_to_crop must have shape \[3, 2, 3\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@given(n=st.integers(0, 12), first=st.integers(0, 14), stop=st.integers(0, 14))
def test_a_slice_of_a_track_keeps_its_place(n: int, first: int, stop: int) -> None:
    track = make_track(n, start=100)
    part = track[first:stop]
    rows = range(n)[first:stop]
    assert len(part) == len(rows)
    for row, original in enumerate(rows):
        assert part.start + row == track.start + original
        assert (part.landmarks[row] == track.landmarks[original]).all()


def test_a_track_is_cut_in_consecutive_frames_only() -> None:
    with pytest.raises(ValueError, match="consecutive"):
        make_track(4)[::2]


def test_the_landmark_groups_cover_the_set_once() -> None:
    groups = [lm.JAW, lm.BROW_LEFT, lm.BROW_RIGHT, lm.NOSE_BRIDGE, lm.NOSE_BASE, lm.EYE_LEFT, lm.EYE_RIGHT]
    covered = [i for group in [*groups, lm.OUTER_LIP, lm.INNER_LIP] for i in range(lm.COUNT)[group]]
    assert covered == list(range(lm.COUNT))
