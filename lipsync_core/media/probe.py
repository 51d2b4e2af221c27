"""Opening a file of any kind: which stream, what is wrong with it, and decoding that steps over damage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lipsync_core.errors import InputError

log = logging.getLogger(__name__)

DECODER_THREADS: Final = 4
"""Fixed, so that neither memory nor the handling of damage depends on the machine's core count."""

_REFUSED: Final = frozenset({"hls", "dash", "concat", "imf", "tty", "sdp", "rtsp", "rtp"})
"""Demuxers that follow addresses found in the file, or render text as video: never what a user means by a video."""

_CURE_MEDIA: Final = "Give a video or sound file that a player can play."

_LONGEST_SHOWN: Final = 200  # characters

S = TypeVar("S", VideoStream, AudioStream)
OfStream = TypeVar("OfStream", VideoStream, AudioStream, SubtitleStream)


def open_media(path: Path) -> InputContainer:
    """Open `path` for reading.

    Raises `InputError` for a missing or unreadable file, a folder, an empty file, and what is not media. A file is
    only ever read as itself: playlists and network addresses are refused.
    """
    try:
        there = path.exists()
    except OSError as error:  # a name no file can have, a folder that may not be seen
        raise InputError(f"{shown(path)} cannot be read: {error.strerror}.", "Check the path.") from error
    if not there:
        raise InputError(f"There is no file {str(path)!r}.", "Check the path.")
    if not path.is_file():
        raise InputError(f"{str(path)!r} is not a file.", "Give the path of a video, image or sound file.")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{str(path)!r} is empty (zero bytes).", "Copy or download it again.")
        # The prefix keeps a colon in the name from being read as a protocol, and a leading dash from being an option.
        container = av.open(
            f"file:{path}",
            "r",
            container_options={"protocol_whitelist": "file", "pattern_type": "none"},
            metadata_errors="replace",
        )
    except PermissionError as error:
        raise InputError(f"{str(path)!r} may not be read.", "Change its permissions.") from error
    except (FFmpegError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} is not a video, image or sound file ({reason(error)}).", _CURE_MEDIA
        ) from error
    if _REFUSED.intersection(container.format.name.split(",")):
        name = container.format.name
        container.close()
        raise InputError(f"{str(path)!r} is a {name} file, not media itself.", _CURE_MEDIA)
    return container


def shown(path: Path) -> str:
    """Return a path as a message repeats it: quoted, and not without end."""
    text = repr(str(path))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def reason(error: Exception) -> str:
    """Return FFmpeg's own words for an error, without numbers and file name."""
    return str(getattr(error, "strerror", None) or error)


def find_video(container: InputContainer) -> VideoStream | None:
    """Return the first stream of moving pictures or a photo that can be decoded; cover art does not count."""
    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "AUTO"
            stream.thread_count = DECODER_THREADS
            return stream
    return None


def find_audio(container: InputContainer) -> AudioStream | None:
    """Return the first sound stream that can be decoded."""
    for stream in container.streams.audio:
        if stream.codec_context is not None:
            return stream
    return None


class DamageLog:
    """Says once that a file is damaged, however often it is decoded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = False

    def report(self, error: Exception) -> None:
        """Log the first error as a warning."""
        if not self._said:
            log.warning("%s is damaged (%s); what cannot be decoded is left out", self._path, reason(error))
        self._said = True


def decode_video(container: InputContainer, stream: VideoStream, damage: DamageLog) -> Iterator[VideoFrame]:
    """Decode from where the container stands to its end; damaged packets are reported and left out."""
    for frame in _decode(container, stream, damage):
        if isinstance(frame, VideoFrame):
            yield frame


def decode_audio(container: InputContainer, stream: AudioStream, damage: DamageLog) -> Iterator[AudioFrame]:
    """Decode from where the container stands to its end; damaged packets are reported and left out."""
    for frame in _decode(container, stream, damage):
        if isinstance(frame, AudioFrame):
            yield frame


def _decode(container: InputContainer, stream: S, damage: DamageLog) -> Iterator[VideoFrame | AudioFrame]:
    for packet in _packets(container, stream, damage):
        try:
            frames = stream.decode(packet)
        except FFmpegError as error:
            damage.report(error)
            continue
        yield from frames


def _packets(container: InputContainer, stream: S, damage: DamageLog) -> Iterator[Packet[S] | None]:
    """Yield the stream's packets; the last one is empty and makes the decoder give what it holds."""
    try:
        yield from demux(container, stream)
    except FFmpegError as error:
        damage.report(error)
        yield None


def demux(container: InputContainer, *streams: OfStream) -> Iterator[Packet[OfStream]]:
    """Yield the packets of these streams, whatever other streams begin midway."""
    while True:
        try:
            yield from cast("Iterator[Packet[OfStream]]", container.demux(*streams))
        except IndexError:  # PyAV 18.1 does not know the stream of a packet; the next call begins after that packet
            continue
        return
