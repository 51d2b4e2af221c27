"""Which source frame each output frame shows, and when: the join of a video's times with a sound's length."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import InputError
from lipsync_core.media.index import FrameIndex

log = logging.getLogger(__name__)

Length = Literal["audio", "video"]
Extend = Literal["pingpong", "loop", "hold", "error"]

REFERENCE_FPS: Final = Fraction(25)
"""The rate LatentSync turns every video into (FACTS §5)."""

REFERENCE_SAMPLE_RATE: Final = 16_000
"""The rate LatentSync hears, and writes, sound at (FACTS §4, §8)."""

_SAMPLES_PER_ROW: Final = 2 * 160
"""Whisper has a feature row for every two mel columns, a column for every 160 samples."""

_ROWS_PER_S: Final = REFERENCE_SAMPLE_RATE // _SAMPLES_PER_ROW

_CFR_SLACK: Final = 1.1
"""Output frames FFmpeg lets a frame be early or late by before it drops or repeats one (fftools, `-vsync cfr`)."""

_CFR_NUDGE: Final = 2.0**-17
"""What it adds to each time so that none lies on a midpoint."""

_BROADCAST_RATES: Final = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120))
"""The rates slowed by 1000/1001 (SMPTE); containers often store them rounded, as 29.97."""

_ROUNDED: Final = Fraction(3, 10_000)
"""Relative error of such a rounding: 23.98 for 23.976 is 1.7e-4, while 30 is 1e-3 from 29.97."""

_EXACT_DENOMINATOR: Final = 1001


@dataclass(frozen=True, slots=True)
class Timeline:
    """The job's N output frames.

    source_frames: int64 [N], the source frame each one shows.
    pts: int64 [N], strictly increasing from 0, in units of `time_base` s.
    end_pts: when the last frame's display ends.
    dubbed: bool [N], False where the sound has ended and the source is shown untouched.
    fps: the constant rate, or the average one where the rate varies.
    """

    source_frames: NDArray[np.int64]
    pts: NDArray[np.int64]
    time_base: Fraction
    end_pts: int
    dubbed: NDArray[np.bool_]
    fps: Fraction

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def times(self) -> NDArray[np.float64]:
        """Presentation time of each output frame, s from the output's start, float64 [N]."""
        return self.pts.astype(np.float64) * float(self.time_base)

    @property
    def duration(self) -> Fraction:
        """Length of the output, s."""
        return self.end_pts * self.time_base


def build_timeline(
    index: FrameIndex,
    fps: Fraction,
    *,
    audio_duration: float,
    length: Length = "audio",
    extend: Extend = "pingpong",
    output_fps: Fraction | None = None,
    still: bool = False,
) -> Timeline:
    """Lay the source's frames out under `audio_duration` seconds of sound.

    A constant rate becomes an exact one (time base 1/rate), so that a long file does not drift; a variable rate keeps
    its timestamps. `fps` is the rate the file says; the timestamps decide. `output_fps` lays a new constant rate over
    the source: each output frame shows what the source shows at that moment.

    length="audio" ends with the sound: N = round(duration × rate), at least 1. Past the source's end `extend` says
    what is shown: "pingpong" goes back and forth and shows both end frames twice (0..n−1, n−1..0, 0.., as LatentSync,
    FACTS §5), "loop" starts again, "hold" keeps the last frame, "error" raises `InputError`.
    length="video" has the source's frames, dubbed while the sound lasts; longer sound is cut, with a warning.
    A still has no length of its own: it lasts as the sound does.
    """
    if not np.isfinite(audio_duration) or audio_duration <= 0:
        raise InputError(f"The sound lasts {audio_duration:g} s.", "Give a sound file longer than zero seconds.")
    audio = Fraction(audio_duration)
    if still:
        rate = output_fps or fps
        count = _frames_of(audio, rate)
        return _constant(np.zeros(count, np.int64), rate, audio)
    source = _Source.of(index, fps)
    if length == "video":
        if audio > source.duration + 1 / source.fps:
            log.warning(
                "the sound (%.2f s) is longer than the video (%.2f s); its end is cut", audio, float(source.duration)
            )
        return _with_length_of_video(source, audio, output_fps)
    if extend == "error" and audio > source.duration + 1 / (2 * source.fps):
        raise InputError(
            f"The sound lasts {audio_duration:.2f} s and the video only {float(source.duration):.2f} s.",
            "Give a longer video, or let it be extended with --extend pingpong.",
        )
    if source.constant:
        rate = output_fps or source.fps
        count = _frames_of(audio, rate)
        shown = _floor_multiples(count, source.fps / rate)  # which frame of the endless source
        return _constant(_extended(shown, len(index), extend), rate, audio)
    if output_fps is not None:
        count = _frames_of(audio, output_fps)
        ticks = _floor_multiples(count, 1 / (output_fps * source.time_base))
        starts, frames = source.endless(int(ticks[-1]) + 1, extend)
        return _constant(frames[np.searchsorted(starts, ticks, "right") - 1], output_fps, audio)
    end = max(1, round(audio / source.time_base))
    starts, frames = source.endless(end, extend)
    return _variable(frames, starts, source.time_base, end, audio)


def reference_timeline(index: FrameIndex, fps: Fraction, *, audio_duration: float, still: bool = False) -> Timeline:
    """Lay the source's frames out as LatentSync does (FACTS §4, §5), under `audio_duration` seconds of sound.

    The video is brought to 25 fps the way FFmpeg's `-r 25` does, shown back and forth with both end frames twice, and
    lasts one or two frames longer than the sound; all of it is dubbed. Raises `InputError` for no sound.
    """
    if not np.isfinite(audio_duration) or audio_duration <= 0:
        raise InputError(f"The sound lasts {audio_duration:g} s.", "Give a sound file longer than zero seconds.")
    rows = round(audio_duration * REFERENCE_SAMPLE_RATE) // _SAMPLES_PER_ROW
    count = reference_frame_count(rows, REFERENCE_FPS)
    if still:
        shown = np.zeros(1, np.int64)
    else:
        source = _Source.of(index, fps)
        shown = reference_conversion(np.append(source.starts, source.end), source.time_base * REFERENCE_FPS)
    frames = shown[_extended(np.arange(count, dtype=np.int64), len(shown), "pingpong")]
    times = np.arange(count, dtype=np.int64)
    return Timeline(frames, times, 1 / REFERENCE_FPS, count, np.ones(count, np.bool_), REFERENCE_FPS)


def reference_frame_count(rows: int, fps: Fraction) -> int:
    """Return how many frames LatentSync makes for so many feature rows: the first one whose row is past them is kept.

    FACTS §4: (smallest i with floor(i · 50 / fps) > rows) + 1.
    """
    return -(-(rows + 1) * fps // _ROWS_PER_S) + 1


def reference_conversion(ticks: NDArray[np.int64], step: Fraction) -> NDArray[np.int64]:
    """Return which source frame each frame shows after FFmpeg's `-r`, as its versions 4.2 and 5.1 have it.

    ticks: int64 [n + 1], when each source frame starts and the last one ends, from 0. step: a tick in output frames.
    A frame's own length counts in whole output frames where it rounds to one or more; that is why 30 frames a second
    lose nothing for the first half.
    """
    shown: list[int] = []
    for frame, (start, length) in enumerate(zip(ticks.tolist(), np.diff(ticks).tolist(), strict=False)):
        late = float(start * step) + _CFR_NUDGE - len(shown)
        end = late + (round(length * step) or float(length * step))
        if end < -_CFR_SLACK:
            continue
        # A frame that lasts until the next one begins leaves no gap for the one before to fill.
        shown += [frame] * (round(end) if end > _CFR_SLACK else 1)
    return np.array(shown, np.int64)


@dataclass(frozen=True, slots=True)
class _Source:
    """The source's own times from 0: `starts` and `end` in ticks of `time_base`, which is 1/fps where constant."""

    starts: NDArray[np.int64]
    end: int
    time_base: Fraction
    fps: Fraction
    constant: bool

    @classmethod
    def of(cls, index: FrameIndex, fps: Fraction) -> _Source:
        starts = index.pts - index.pts[0]
        n = len(starts)
        rate = constant_rate(index, fps)
        if rate is not None:
            return cls(np.arange(n, dtype=np.int64), n, 1 / rate, rate, True)
        return cls(starts, index.end_pts - int(index.pts[0]), index.time_base, n / index.duration, False)

    @property
    def duration(self) -> Fraction:
        return self.end * self.time_base

    def endless(self, ticks: int, extend: Extend) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return start and source frame of each frame shown before `ticks`, the source going on as `extend` says.

        Each frame lasts as long as in the source, going backward too; a held one is repeated at the usual distance,
        because the mouth on it must still move.
        """
        durations = np.diff(self.starts, append=self.end)
        n = len(durations)
        if extend == "hold":
            usual = max(1, int(np.median(durations)))
            extra = max(0, -(-(ticks - self.end) // usual))
            shown = np.arange(n + extra, dtype=np.int64)
            lasting = np.concatenate([durations, np.full(extra, usual, np.int64)])
        else:
            shown = np.arange(n * (ticks // self.end + 1), dtype=np.int64)
            lasting = durations[_extended(shown, n, extend)]
        starts = np.cumsum(lasting) - lasting
        inside = starts < ticks
        return starts[inside], _extended(shown[inside], n, extend)


def constant_rate(index: FrameIndex, fps: Fraction) -> Fraction | None:
    """Return the exact rate all timestamps agree with to within the rounding of their time base, or None.

    Tried in turn: `fps` as the file says it (but 30000/1001 where it says 29.97), the broadcast rate nearest to the
    timestamps, and the simplest fractions they give.
    """
    n = len(index)
    near = min(_BROADCAST_RATES, key=lambda rate: abs(rate - fps))
    if abs(near - fps) < _ROUNDED * near:
        fps = near
    if n == 1:
        return fps
    span = int(index.pts[-1] - index.pts[0]) * index.time_base
    measured = (n - 1) / span
    near = min(_BROADCAST_RATES, key=lambda rate: abs(rate - measured))
    candidates = [fps, near, measured.limit_denominator(1), measured.limit_denominator(_EXACT_DENOMINATOR)]
    seconds = (index.pts - index.pts[0]) * float(index.time_base)
    for rate in candidates:
        # Both ends of a distance are rounded to the time base, each by up to one tick (some muxers cut, not round).
        if rate > 0 and np.abs(seconds - np.arange(n) / float(rate)).max() <= 1.01 * float(index.time_base) + 1e-9:
            return rate
    return None


def _with_length_of_video(source: _Source, audio: Fraction, output_fps: Fraction | None) -> Timeline:
    n = len(source.starts)
    if output_fps is None:
        frames = np.arange(n, dtype=np.int64)
        if source.constant:
            return _constant(frames, source.fps, audio)
        return _variable(frames, source.starts, source.time_base, source.end, audio)
    count = _frames_of(source.duration, output_fps)
    ticks = _floor_multiples(count, 1 / (output_fps * source.time_base))
    return _constant(np.searchsorted(source.starts, ticks, "right") - 1, output_fps, audio)


def _constant(frames: NDArray[np.int64], rate: Fraction, audio: Fraction) -> Timeline:
    n = len(frames)
    return _variable(frames, np.arange(n, dtype=np.int64), 1 / rate, n, audio)


def _variable(
    frames: NDArray[np.int64], starts: NDArray[np.int64], time_base: Fraction, end: int, audio: Fraction
) -> Timeline:
    dubbed = starts < float(audio / time_base)
    return Timeline(frames, starts, time_base, end, dubbed, len(frames) / (end * time_base))


def _frames_of(duration: Fraction, rate: Fraction) -> int:
    return max(1, round(duration * rate))


def _floor_multiples(count: int, step: Fraction) -> NDArray[np.int64]:
    """Return floor(i · step) for i < `count`, exactly: in floating point 1/25 s steps fall on the wrong side."""
    return np.array([i * step.numerator // step.denominator for i in range(count)], np.int64)


def _extended(shown: NDArray[np.int64], n: int, extend: Extend) -> NDArray[np.int64]:
    """Map numbers of an endless sequence to the n source frames."""
    if extend == "loop":
        return shown % n
    if extend == "pingpong":
        phase = shown % (2 * n)
        return np.where(phase < n, phase, 2 * n - 1 - phase)
    return np.minimum(shown, n - 1)
