"""The timeline's arithmetic, without a file."""

from __future__ import annotations

import json
import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core.errors import InputError
from lipsync_core.media.index import FrameIndex
from lipsync_core.media.timeline import (
    Timeline,
    build_timeline,
    constant_rate,
    reference_conversion,
    reference_frame_count,
    reference_timeline,
)

NTSC = Fraction(30000, 1001)
MS = Fraction(1, 1000)


def index_of(pts: Any, time_base: Fraction, end: int | None = None) -> FrameIndex:
    pts = np.asarray(pts, np.int64)
    step = int(np.median(np.diff(pts))) if len(pts) > 1 else 1
    return FrameIndex(pts, np.ones(len(pts), np.bool_), time_base, end if end is not None else int(pts[-1]) + step)


def steady(n: int, fps: Fraction, time_base: Fraction, start: int = 0) -> FrameIndex:
    """Timestamps as a container with a coarse clock stores a constant rate: each rounded by itself."""
    step = 1 / (fps * time_base)
    ticks = (2 * np.arange(n) * step.numerator + step.denominator) // (2 * step.denominator)
    return index_of(start + ticks, time_base)


def check(timeline: Timeline) -> None:
    """What holds for every timeline."""
    n = len(timeline)
    assert n >= 1
    assert timeline.pts[0] == 0
    assert (np.diff(timeline.pts) > 0).all()
    assert timeline.end_pts > timeline.pts[-1]
    assert timeline.source_frames.dtype == timeline.pts.dtype == np.int64
    assert timeline.dubbed.dtype == np.bool_
    assert len(timeline.source_frames) == len(timeline.dubbed) == len(timeline.times) == n
    assert (np.diff(timeline.dubbed.astype(int)) <= 0).all()
    assert timeline.times.dtype == np.float64


RATES = [
    Fraction(25),
    Fraction(24000, 1001),
    NTSC,
    Fraction(30),
    Fraction(50),
    Fraction(60000, 1001),
    Fraction(12),
    Fraction(1),
    Fraction(15, 2),
]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("time_base", [MS, Fraction(1, 90000), Fraction(1, 12800), Fraction(1, 600)])
def test_constant_rate_is_found_exactly(rate: Fraction, time_base: Fraction) -> None:
    """An hour long, whatever the container says the rate is."""
    index = steady(round(3600 * rate), rate, time_base, start=77)
    for said in (rate, Fraction(round(rate * 100), 100), rate * Fraction(1001, 1000), Fraction(17)):
        assert constant_rate(index, said) == rate


def test_constant_rate_of_cut_stamps() -> None:
    """Some muxers cut where others round."""
    assert constant_rate(index_of([int(i * 1000 / NTSC) for i in range(9000)], MS), NTSC) == NTSC


def test_variable_rate_is_not_constant() -> None:
    rng = np.random.default_rng(0)
    jitter = np.cumsum(rng.integers(25, 50, 400))
    assert constant_rate(index_of(jitter, MS), Fraction(25)) is None
    gap = np.r_[np.arange(100), np.arange(103, 300)] * 40
    assert constant_rate(index_of(gap, MS), Fraction(25)) is None
    assert constant_rate(index_of([0], MS), Fraction(25)) == 25


def test_long_ntsc_in_milliseconds_does_not_drift() -> None:
    timeline = build_timeline(steady(900, NTSC, MS), Fraction(2997, 100), audio_duration=3600.0)
    check(timeline)
    assert timeline.time_base == 1 / NTSC
    assert timeline.fps == NTSC
    assert len(timeline) == round(3600 * NTSC)
    assert abs(timeline.times[-1] - (len(timeline) - 1) * 1001 / 30000) < 1e-9
    assert timeline.duration == len(timeline) / NTSC


def test_ping_pong_repeats_both_ends() -> None:
    timeline = build_timeline(steady(4, Fraction(25), MS), Fraction(25), audio_duration=14 / 25)
    assert timeline.source_frames.tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2]
    assert timeline.dubbed.all()


@pytest.mark.parametrize(("extend", "frames"), [("loop", [0, 1, 2, 0, 1, 2, 0]), ("hold", [0, 1, 2, 2, 2, 2, 2])])
def test_other_ways_to_extend(extend: Any, frames: list[int]) -> None:
    timeline = build_timeline(steady(3, Fraction(25), MS), Fraction(25), audio_duration=7 / 25, extend=extend)
    assert timeline.source_frames.tolist() == frames


def test_error_instead_of_extending() -> None:
    index = steady(50, Fraction(25), MS)
    with pytest.raises(InputError, match=r"3\.00 s and the video only 2\.00 s"):
        build_timeline(index, Fraction(25), audio_duration=3.0, extend="error")
    assert len(build_timeline(index, Fraction(25), audio_duration=2.015, extend="error")) == 50
    assert len(build_timeline(index, Fraction(25), audio_duration=1.0, extend="error")) == 25


def test_frame_count_is_the_audio_rounded() -> None:
    index = steady(250, Fraction(25), Fraction(1, 12800))
    assert len(build_timeline(index, Fraction(25), audio_duration=19.84)) == 496
    assert len(build_timeline(index, Fraction(25), audio_duration=0.001)) == 1
    with pytest.raises(InputError, match="lasts 0 s"):
        build_timeline(index, Fraction(25), audio_duration=0.0)


def test_length_of_the_video(caplog: pytest.LogCaptureFixture) -> None:
    index = steady(50, Fraction(25), MS)
    short = build_timeline(index, Fraction(25), audio_duration=1.0, length="video")
    assert short.source_frames.tolist() == list(range(50))
    assert short.dubbed.tolist() == [True] * 25 + [False] * 25
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        long = build_timeline(index, Fraction(25), audio_duration=9.0, length="video", extend="error")
    assert "its end is cut" in caplog.text
    assert len(long) == 50
    assert long.dubbed.all()


def test_variable_rate_keeps_its_times_and_mirrors_durations() -> None:
    index = index_of([1000, 1040, 1140, 1150], MS, end=1200)  # lasting 40, 100, 10, 50
    timeline = build_timeline(index, Fraction(20), audio_duration=0.43)
    check(timeline)
    assert timeline.time_base == MS
    assert timeline.source_frames.tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0]
    assert timeline.pts.tolist() == [0, 40, 140, 150, 200, 250, 260, 360, 400]
    assert timeline.end_pts == 430
    held = build_timeline(index, Fraction(20), audio_duration=0.4, extend="hold")
    assert held.pts.tolist() == [0, 40, 140, 150, 200, 245, 290, 335, 380]
    assert held.source_frames.tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3]
    looped = build_timeline(index, Fraction(20), audio_duration=0.25, extend="loop")
    assert looped.pts.tolist() == [0, 40, 140, 150, 200, 240]
    assert looped.source_frames.tolist() == [0, 1, 2, 3, 0, 1]
    whole = build_timeline(index, Fraction(20), audio_duration=0.145, length="video")
    assert whole.pts.tolist() == [0, 40, 140, 150]
    assert whole.end_pts == 200
    assert whole.dubbed.tolist() == [True, True, True, False]


def test_new_rate_shows_what_the_source_shows() -> None:
    to_thirty = build_timeline(steady(50, Fraction(25), MS), Fraction(25), audio_duration=1.0, output_fps=Fraction(30))
    assert to_thirty.source_frames.tolist() == [i * 25 // 30 for i in range(30)]
    down = build_timeline(steady(60, Fraction(60), MS), Fraction(60), audio_duration=1.0, output_fps=Fraction(25))
    assert down.source_frames.tolist() == [i * 60 // 25 for i in range(25)]
    index = index_of([0, 40, 140, 150], MS, end=200)
    even = build_timeline(index, Fraction(20), audio_duration=0.4, output_fps=Fraction(50))
    # Source frames 0, 1, 2, 3, 3, 2, 1 start at 0, 40, 140, 150, 200, 250, 260 ms; output frames every 20 ms.
    assert even.source_frames.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 1, 1, 1, 1, 1, 0, 0]
    assert even.time_base == Fraction(1, 50)
    whole = build_timeline(index, Fraction(20), audio_duration=9.0, output_fps=Fraction(50), length="video")
    assert whole.source_frames.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("length", ["audio", "video"])
def test_still(length: Any) -> None:
    index = index_of([0], Fraction(1, 25))
    timeline = build_timeline(index, Fraction(25), audio_duration=2.0, still=True, length=length, extend="error")
    assert timeline.source_frames.tolist() == [0] * 50
    assert len(build_timeline(index, Fraction(25), audio_duration=2.0, still=True, output_fps=Fraction(30))) == 60


@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    start=st.integers(-1000, 100_000),
    time_base=st.sampled_from([MS, Fraction(1, 90000), Fraction(1, 25), Fraction(1, 10**9)]),
    seconds=st.floats(0.001, 3),
    length=st.sampled_from(["audio", "video"]),
    extend=st.sampled_from(["pingpong", "loop", "hold"]),
    output_fps=st.sampled_from([None, Fraction(25), NTSC, Fraction(7, 3)]),
)
def test_any_times(
    gaps: list[int],
    start: int,
    time_base: Fraction,
    seconds: float,
    length: Any,
    extend: Any,
    output_fps: Fraction | None,
) -> None:
    scale = max(1, round(Fraction(1, 1000) / time_base))  # gaps are about milliseconds in every time base
    pts = start + np.cumsum([0, *gaps[:-1]]) * scale
    index = index_of(pts, time_base, end=int(pts[-1]) + gaps[-1] * scale)
    timeline = build_timeline(
        index, Fraction(25), audio_duration=seconds, length=length, extend=extend, output_fps=output_fps
    )
    check(timeline)
    n = len(index)
    assert timeline.source_frames.min() >= 0
    assert timeline.source_frames.max() < n
    if length == "audio":
        assert timeline.dubbed[0]
        if constant_rate(index, Fraction(25)) is None and output_fps is None:
            assert abs(timeline.duration - Fraction(seconds)) <= time_base  # ends with the sound
        elif len(timeline) > 1:
            assert abs(timeline.duration - Fraction(seconds)) <= 1 / timeline.fps / 2
    elif output_fps is None:
        assert timeline.source_frames.tolist() == list(range(n))
        assert timeline.dubbed.sum() == (timeline.times < seconds).sum()
    steps = np.diff(timeline.source_frames)
    if output_fps is None and extend == "pingpong":
        assert np.abs(steps).max(initial=0) <= 1
    if extend == "hold":
        assert (steps >= 0).all()


# As LatentSync does it


def test_latentsyncs_conversion_to_25_frames_a_second(shared_reference: Path) -> None:
    cases = json.loads((shared_reference / "fps_conversion_25.json").read_text())["cases"]
    assert len(cases) == 8
    for case in cases.values():
        rate, n = Fraction(case["source_fps"]), case["source_frames"]
        shown = case["source_index_per_output_frame"]
        assert reference_conversion(np.arange(n + 1), 25 / rate).tolist() == shown
        # Through the whole timeline, however the container rounds its times.
        timeline = reference_timeline(steady(n, rate, Fraction(1, 90000)), rate, audio_duration=0.9 * n / rate)
        assert timeline.source_frames.tolist() == (shown + shown[::-1])[: len(timeline)]


def test_latentsyncs_frame_counts(shared_reference: Path) -> None:
    tables = json.loads((shared_reference / "audio_chunk_counts.json").read_text())
    exact = {"23.976": Fraction(24000, 1001), "29.97": NTSC}
    counted = 0
    for rate, table in tables["counts_by_fps_then_feature_rows_L"].items():
        for rows, count in table.items():
            assert reference_frame_count(int(rows), exact.get(rate, Fraction(rate))) == count
            counted += 1
    assert counted == 7 * 17


def test_latentsyncs_order_of_frames(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "tiny_pipeline.npz")["source_frame_index"]
    timeline = reference_timeline(steady(10, Fraction(25), MS), Fraction(25), audio_duration=1.0)
    assert timeline.source_frames.tolist() == golden.tolist()
    assert timeline.dubbed.all()
    assert timeline.fps == 25
    assert timeline.time_base == Fraction(1, 25)
    check(timeline)


def test_latentsync_ends_two_frames_after_the_sound() -> None:
    index = steady(3000, Fraction(25), MS)
    for seconds, frames in ((12.0, 302), (35.0, 877), (0.001, 2)):
        assert len(reference_timeline(index, Fraction(25), audio_duration=seconds)) == frames
    still = reference_timeline(index_of([0], MS), Fraction(25), audio_duration=1.0, still=True)
    assert still.source_frames.tolist() == [0] * 27
    with pytest.raises(InputError, match="lasts 0 s"):
        reference_timeline(index, Fraction(25), audio_duration=0.0)


def test_the_conversion_repeats_a_frame_that_lasts() -> None:
    """The second of three frames lasts five times as long as the others."""
    shown = reference_conversion(np.array([0, 40, 240, 280]), MS * 25)
    assert shown.tolist() == [0, 1, 1, 1, 1, 1, 2]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_the_conversion_keeps_to_the_clock(gaps: list[int]) -> None:
    ticks = np.cumsum([0, *gaps])
    shown = reference_conversion(ticks, MS * 25)
    assert (np.diff(shown) >= 0).all()
    assert shown[0] == 0
    assert shown[-1] < len(gaps)
    shown_at = ticks[shown] / 40
    longest = max(gaps) / 40
    assert np.abs(np.arange(len(shown)) - shown_at).max() <= 2.7 + longest
