"""What the analysis cache keeps comes back whole, from one scene or many."""

from __future__ import annotations

from fractions import Fraction
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipsync_core import cache
from lipsync_core.analysis import Analysis
from lipsync_core.landmarks import COUNT
from lipsync_core.media.index import FrameIndex
from lipsync_core.types import FaceTrack


def an_analysis(lengths: list[int], seed: int) -> Analysis:
    rng = np.random.default_rng(seed)
    tracks, start = [], 0
    for n in lengths:
        landmarks = rng.normal(0, 100, (n, COUNT, 2)).astype(np.float32)
        tracks.append(FaceTrack(start, rng.normal(0, 1, (n, 2, 3)), rng.random(n) < 0.8, landmarks, int(2 * n)))
        start += n
    return Analysis(
        FrameIndex(np.arange(start) * 3, rng.random(start) < 0.1, Fraction(1, 75), 3 * start), tuple(tracks)
    )


def test_the_key_depends_on_all_that_an_analysis_does(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: list[tuple[str, str, str, dict[str, object]]] = [
        ("video", "aligner", "1", {}),
        ("other", "aligner", "1", {}),
        ("video", "other", "1", {}),
        ("video", "aligner", "2", {}),
        ("video", "aligner", "1", {"face": "left"}),
    ]
    keys = {cache.analysis_key(*each) for each in facts}
    monkeypatch.setattr(cache, "THRESHOLD", cache.THRESHOLD + 1)
    keys.add(cache.analysis_key(*facts[0]))
    assert len(keys) == len(facts) + 1


@settings(max_examples=20)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_an_analysis_comes_back_as_it_was(lengths: list[int], rows: int, seed: int) -> None:
    written = an_analysis(lengths, seed)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_CACHE", folder)
        patch.setattr(cache, "_ROWS", rows)
        cache.cached("key", lambda: written)
        read, from_cache = cache.cached("key", lambda: an_analysis([1], 0))
    assert from_cache
    assert read.scenes == written.scenes
    np.testing.assert_array_equal(read.index.pts, written.index.pts)
    for ours, theirs in zip(read.tracks, written.tracks, strict=True):
        assert ours.crop_size == theirs.crop_size
        np.testing.assert_array_equal(ours.frame_to_crop, theirs.frame_to_crop)
        np.testing.assert_array_equal(ours.found, theirs.found)
        np.testing.assert_array_equal(ours.landmarks, theirs.landmarks)
