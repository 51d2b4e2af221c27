"""Reading sound: from a sound file or a video's sound track, streamed, resampled, aligned with the picture."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from lipsync_core.errors import InputError
from lipsync_core.media.probe import DamageLog, decode_audio, decode_video, find_audio, find_video, open_media
from lipsync_core.types import AudioBlock

log = logging.getLogger(__name__)

_S16_FULL_SCALE: Final = 32768.0
_BLOCK_S: Final = 1.0
_GAP_S: Final = 0.1
"""Jumps of the timestamps above this are holes in the recording; below, rounding of the container."""

_MAX_SAMPLE_RATE: Final = 768_000
"""The highest rate converters are made for; a damaged header says more, and resampling it takes all memory."""

_LAYOUTS: Final = ("", "mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""FFmpeg's default layout for each number of channels (`av_channel_layout_default`).

Of more channels without names, as recorders for many microphones write them, the first eight are taken.
"""

SILENCE_PEAK: Final = 10.0 ** (-60 / 20)
"""A sound track that never rises above −60 dB of full scale carries no speech."""


_DEEP: Final = ("s32", "s64")  # of 24 bits and more; lossy sound decodes to floating point


class AudioSource:
    """The first sound stream of a sound or video file. Holds no open file; each iteration decodes anew.

    path: the file. sample_rate: Hz. channels: number. layout: FFmpeg's name of the channel layout. codec_name.
    named: the stream's language tag, if it has one.

    Sample 0 is the first sample of a sound file; of a video file it is what is heard when its first frame is shown
    (silence is put in front where the sound starts later, and holes are filled with it).

    Raises `InputError` if the file is missing, a folder, empty, not media, has no sound, or no sample of it decodes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._damage = DamageLog(self.path)
        with open_media(self.path) as container:
            stream = self.find(container)
            self.codec_name = stream.codec_context.codec.canonical_name
            language = stream.metadata.get("language", "und")
            self.named = {} if language == "und" else {"language": language}
            frame = next(decode_audio(container, stream, self._damage), None)
            if frame is None or not 1 <= frame.sample_rate <= _MAX_SAMPLE_RATE:
                raise InputError(
                    f"No sample of the sound of {str(self.path)!r} ({self.codec_name}) can be decoded.",
                    "Give a file that a player can play.",
                )
            self.sample_rate = frame.sample_rate
            self.layout = _layout(frame)
            self._format = frame.format.packed.name
            self.is_deep = self._format in _DEEP
            self.channels = AudioLayout(self.layout).nb_channels
        self.video_start_s = _video_start(self.path, self._damage)

    def find(self, container: InputContainer) -> AudioStream:
        """Return this source's stream in a freshly opened container; raises `InputError` where there is none."""
        stream = find_audio(container)
        if stream is None:
            raise InputError(
                f"{str(self.path)!r} has no sound that can be decoded.",
                "Give a sound file, or a video with a sound track.",
            )
        return stream

    @cached_property
    def duration(self) -> float:
        """Length in s from sample 0, counted by decoding once (what a container says is often wrong)."""
        return sum(frame.samples for frame in self.frames()) / self.sample_rate

    def frames(self) -> Iterator[AudioFrame]:
        """Yield the sound from sample 0 on without holes, packed, at its own rate and layout."""
        with open_media(self.path) as container:
            stream = self.find(container)
            resampler = _Uniform(self._format, self.layout, self.sample_rate)
            for frame in self._without_holes(_without_padding(decode_audio(container, stream, self._damage))):
                yield from map(_finite, resampler.feed(frame))
            yield from map(_finite, resampler.feed(None))

    def blocks(self, sample_rate: int, *, offset_s: float = 0.0) -> Iterable[AudioBlock]:
        """Return mono blocks of about a second at `sample_rate` Hz, decoded anew by each iteration.

        Resampled to 16-bit and divided by 32768, as LatentSync does (FACTS §4). A positive `offset_s` puts silence
        in front, a negative one cuts the beginning.
        """
        return _Blocks(self, sample_rate, offset_s)

    def is_silent(self, threshold: float = SILENCE_PEAK) -> bool:
        """Say whether no sample of the mono mix is above `threshold` (1 is full scale); stops at the first that is."""
        return all(float(np.abs(b.samples).max(initial=0.0)) <= threshold for b in self.blocks(self.sample_rate))

    def _without_holes(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        if self.video_start_s is None:
            yield from frames
            return
        position = 0  # samples given out since the first picture
        for frame in frames:
            rate = frame.sample_rate
            if frame.pts is not None and frame.time_base is not None:
                gap = round((frame.pts * frame.time_base - self.video_start_s) * rate) - position
                if position == 0 or abs(gap) > _GAP_S * rate:
                    for count in _portions(gap, rate):
                        yield _silence(frame, count)
                    position += max(0, gap)
                    cut = -min(0, gap)
                    if cut >= frame.samples:
                        continue
                    if cut:
                        frame = _part(frame, slice(cut, None))
            position += frame.samples
            yield frame


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The re-iterable `AudioSource.blocks` returns."""

    source: AudioSource
    sample_rate: int
    offset_s: float

    def __iter__(self) -> Iterator[AudioBlock]:
        shift = round(self.offset_s * self.sample_rate)
        size = max(1, round(_BLOCK_S * self.sample_rate))
        start = 0
        pending = [np.zeros(n, np.int16) for n in _portions(shift, size)]
        drop = max(0, -shift)
        for part in self._mono():
            kept = part[drop:]
            drop -= len(part) - len(kept)
            pending.append(kept)
            if sum(map(len, pending)) >= size:
                whole = np.concatenate(pending)
                ready = len(whole) // size * size
                yield from _cut(whole[:ready], start, size)
                start += ready
                pending = [whole[ready:]]
        yield from _cut(np.concatenate([*pending, np.zeros(0, np.int16)]), start, size)

    def _mono(self) -> Iterator[NDArray[np.int16]]:
        resampler = AudioResampler("s16", "mono", self.sample_rate)
        for frame in self.source.frames():
            yield from (_samples(out)[:, 0] for out in resampler.resample(frame))
        yield from (_samples(out)[:, 0] for out in resampler.resample(None))


class _Uniform:
    """Brings frames to one packed sample format, layout and rate; a stream may change midway."""

    def __init__(self, sample_format: str, layout: str, sample_rate: int) -> None:
        self._target = (sample_format, layout, sample_rate)
        self._form: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None

    def feed(self, frame: AudioFrame | None) -> Iterator[AudioFrame]:
        """Yield what is ready after `frame`; None ends the stream."""
        form = (frame.format.name, _layout(frame), frame.sample_rate) if frame is not None else None
        if form != self._form:
            if self._resampler is not None:
                yield from self._resampler.resample(None)
            self._resampler = None
            if form is not None and form != self._target:
                self._resampler = AudioResampler(*self._target)
            self._form = form
        if frame is None:
            return
        if frame.layout.name != _layout(frame):
            frame = _like(frame, _samples(frame))
        frame.pts = None  # the timestamps were used up by `_without_holes`
        if self._resampler is None:
            yield frame
        else:
            yield from self._resampler.resample(frame)


def _finite(frame: AudioFrame) -> AudioFrame:
    """Return a packed frame with silence for NaN and full scale for infinity, which speech synthesis can write."""
    if not frame.format.name.startswith(("flt", "dbl")):
        return frame
    samples = _samples(frame)
    return frame if np.isfinite(samples).all() else _like(frame, np.nan_to_num(samples, posinf=1.0, neginf=-1.0))


def _without_padding(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    """Cut the last frame to its duration: an MP4's last AAC frame is whole, its duration says how much is sound."""
    last: AudioFrame | None = None
    for frame in frames:
        if last is not None:
            yield last
        last = frame
    if last is not None:
        counted_in_samples = last.time_base == Fraction(1, last.sample_rate)
        yield _part(last, slice(last.duration)) if counted_in_samples and 0 < last.duration < last.samples else last


def _video_start(path: Path, damage: DamageLog) -> Fraction | None:
    """Return when the file's first frame is shown, s; None for a sound file (cover art is no video)."""
    with open_media(path) as container:
        stream = find_video(container)
        if stream is None or stream.time_base is None:
            return None
        frame = next(decode_video(container, stream, damage), None)
        pts = frame.pts if frame is not None and frame.pts is not None else stream.start_time
        return pts * stream.time_base if pts is not None else None


def _portions(total: int, most: int) -> Iterator[int]:
    """Split `total` (nothing where it is negative) into parts of up to `most`, so that a long silence streams."""
    while total > 0:
        yield min(total, most)
        total -= most


def _cut(samples: NDArray[np.int16], start: int, size: int) -> Iterator[AudioBlock]:
    for at in range(0, len(samples), size):
        values = samples[at : at + size].astype(np.float32) / np.float32(_S16_FULL_SCALE)
        yield AudioBlock(start + at, values)


def _layout(frame: AudioFrame) -> str:
    """Return the layout's name; a WAV file that names no speakers ("1 channels") gets FFmpeg's usual ones."""
    return frame.layout.name if "channels" not in frame.layout.name else _LAYOUTS[min(frame.layout.nb_channels, 8)]


def _samples(frame: AudioFrame) -> NDArray[Any]:
    """Return the frame's samples [n, channels].

    Planar sound is packed first: PyAV 18.1 reads past the end of a frame of eight planes.
    """
    if frame.format.is_planar:
        packer = AudioResampler(frame.format.packed.name, frame.layout.name, frame.sample_rate)
        packed = [*packer.resample(frame), *packer.resample(None)]
        return np.concatenate([_samples(part) for part in packed])
    return np.asarray(frame.to_ndarray()).reshape(frame.samples, -1)


def _like(frame: AudioFrame, samples: NDArray[Any]) -> AudioFrame:
    """Make a packed frame of samples [n, channels] with the rate, sample type and layout of `frame`."""
    layout = AudioLayout(_layout(frame))
    packed = np.ascontiguousarray(samples[:, : layout.nb_channels]).reshape(1, -1)
    made = AudioFrame.from_ndarray(packed, format=frame.format.packed.name, layout=layout.name)
    made.sample_rate = frame.sample_rate
    return made


def _silence(frame: AudioFrame, count: int) -> AudioFrame:
    sample = _samples(frame)[:1]
    # Unsigned 8-bit sound is silent at 128 (libavutil/samplefmt.h).
    level = 128 if sample.dtype == np.uint8 else 0
    return _like(frame, np.full((count, sample.shape[1]), level, sample.dtype))


def _part(frame: AudioFrame, which: slice) -> AudioFrame:
    made = _like(frame, _samples(frame)[which])
    made.pts, made.time_base = frame.pts, frame.time_base
    return made
