"""The output's sound track: the target sound copied where the container takes its codec, else encoded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec import Codec, CodecContext
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from numpy.typing import NDArray

from lipsync_core.media.audio import AudioSource
from lipsync_core.media.probe import demux, open_media

log = logging.getLogger(__name__)

COPIED: Final = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"}),
    ".mkv": frozenset({"aac", "mp3", "ac3", "eac3", "flac", "opus", "vorbis", "alac"}),
    ".webm": frozenset({"opus", "vorbis"}),
}
"""Codecs each container takes and common players play there."""

ENCODER: Final = {".mp4": "aac", ".mov": "aac", ".mkv": "flac", ".webm": "libopus"}

_BIT_RATE_PER_CHANNEL: Final = 96_000
"""192 kb/s in stereo, where AAC and Opus are taken for transparent. FLAC ignores it."""

_CHUNK: Final = 16_384


@dataclass(frozen=True, slots=True)
class SoundPlan:
    """What the output's sound is made from and how long it has to be.

    duration: s, of the video. tolerance: s, one frame: a sound this near is copied as it is.
    offset_s: positive where the sound starts later than the picture, s.
    """

    source: AudioSource
    suffix: str
    duration: Fraction
    tolerance: Fraction
    offset_s: float = 0.0

    @property
    def may_copy(self) -> bool:
        """Say whether the sound's packets can go into the output as they are."""
        near = abs(Fraction(self.source.duration) - self.duration) <= self.tolerance
        return self.source.codec_name in COPIED[self.suffix] and near and not self.offset_s


def add_sound(
    container: OutputContainer, plan: SoundPlan, stack: contextlib.ExitStack
) -> Iterator[Packet[AudioStream]]:
    """Add the sound stream to `container`; returns its packets, still to be muxed.

    Copied packets keep their rate, channels and bytes. Encoded sound keeps the source's rate and channels where the
    encoder has them (Opus works at 48 kHz), and is cut or filled with silence to the video's length to the sample.
    `stack` keeps the source open until the packets are muxed.
    """
    if plan.may_copy:
        source = stack.enter_context(open_media(plan.source.path))
        shift = _copy_shift(plan)
        if shift is not None:
            stream = plan.source.find(source)
            copied = container.add_stream_from_template(stream)
            copied.metadata.update(plan.source.named)
            return _copied_packets(source, stream, copied, shift)
    codec = ENCODER[plan.suffix]
    rate = _rate_for(codec, plan.source.sample_rate)
    layout = _layout_for(codec, plan.source.layout, rate)
    encoded = container.add_stream(codec, rate=rate, layout=layout)
    assert isinstance(encoded, AudioStream)
    encoded.metadata.update(plan.source.named)
    encoded.codec_context.bit_rate = _BIT_RATE_PER_CHANNEL * AudioLayout(layout).nb_channels
    encoded.codec_context.time_base = Fraction(1, rate)
    if codec == "flac" and plan.source.is_deep:
        encoded.codec_context.format = "s32"  # the encoder's 24 bits, instead of 16
    return _encoded_packets(plan, encoded, rate, layout)


def _copy_shift(plan: SoundPlan) -> Fraction | None:
    """Return the time in the source, s, that becomes 0; None where copying would move the sound against the picture.

    Packets before time 0 hold the decoder's run-in. MP4's edit list and Opus's pre-skip hide it; elsewhere the muxer
    would move everything later.
    """
    with open_media(plan.source.path) as container:
        stream = plan.source.find(container)
        first: Fraction | None = None
        for packet in demux(container, stream):
            if packet.pts is None or packet.dts is None:
                return None
            first = packet.pts * packet.time_base if first is None else first
            frame = next(iter(stream.decode(packet)), None)
            if frame is not None and frame.pts is not None and frame.time_base is not None:
                heard = frame.pts * frame.time_base
                zero = heard if plan.source.video_start_s is None else plan.source.video_start_s
                run_in_is_hidden = plan.suffix in {".mp4", ".mov"} or plan.source.codec_name == "opus"
                if abs(heard - zero) > plan.tolerance or (first < zero and not run_in_is_hidden):
                    return None
                return zero
    return None


def _copied_packets(
    container: InputContainer, stream: AudioStream, into: AudioStream, zero: Fraction
) -> Iterator[Packet[AudioStream]]:
    for packet in demux(container, stream):
        if packet.pts is None or packet.dts is None:
            continue  # the empty packet at the end
        shift = round(zero / packet.time_base)
        packet.pts -= shift
        packet.dts -= shift
        packet.stream = into
        yield packet


def _encoded_packets(plan: SoundPlan, stream: AudioStream, rate: int, layout: str) -> Iterator[Packet[AudioStream]]:
    position = 0
    for samples in _fitted(plan, rate, layout):
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = position
        position += frame.samples
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _fitted(plan: SoundPlan, rate: int, layout: str) -> Iterator[NDArray[np.float32]]:
    """Yield the sound float32 [n, channels] at `rate`, moved by the offset, exactly as long as the video."""
    left = max(1, round(plan.duration * rate))
    shift = round(plan.offset_s * rate)
    channels = AudioLayout(layout).nb_channels
    drop = max(0, -shift)

    def parts() -> Iterator[NDArray[np.float32]]:
        yield from _silence(channels, shift)
        # Packed: PyAV 18.1 reads past the end of a frame of eight planes.
        resampler = AudioResampler("flt", layout, rate)
        for frame in plan.source.frames():
            yield from (_values(out, channels) for out in resampler.resample(frame))
        yield from (_values(out, channels) for out in resampler.resample(None))

    for part in parts():
        kept = part[drop:][:left]
        drop = max(0, drop - len(part))
        left -= len(kept)
        if len(kept):
            yield kept
        if not left:
            return
    yield from _silence(channels, left)


def _values(frame: AudioFrame, channels: int) -> NDArray[np.float32]:
    return np.asarray(frame.to_ndarray(), np.float32).reshape(-1, channels)


def _silence(channels: int, count: int) -> Iterator[NDArray[np.float32]]:
    while count > 0:
        yield np.zeros((min(count, _CHUNK), channels), np.float32)
        count -= _CHUNK


def _rate_for(codec: str, rate: int) -> int:
    """Return the rate the encoder works at: the source's, else the next one above it, else the highest there is."""
    rates = sorted(Codec(codec, "w").audio_rates or [rate])
    return next((r for r in rates if r >= rate), rates[-1])


def _layout_for(codec: str, layout: str, rate: int) -> str:
    """Return the source's layout if the encoder takes it, else stereo."""
    try:
        context = CodecContext.create(codec, "w")
        assert isinstance(context, AudioCodecContext)
        context.layout = layout
        context.sample_rate = rate
        context.format = "fltp" if codec == "aac" else "s16"
        context.open()
    except (FFmpegError, ValueError):
        log.warning("%s cannot hold the channels %r; the sound is mixed to stereo", codec, layout)
        return "stereo"
    return layout
