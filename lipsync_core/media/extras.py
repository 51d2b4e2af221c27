"""What a video carries beside pictures and sound, for the output: tags, chapters, subtitles."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

from lipsync_core.media.probe import demux, open_media, reason

if TYPE_CHECKING:
    from av.container.core import Chapter  # in PyAV's stub alone

log = logging.getLogger(__name__)

_OF_THE_FILE: Final = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "timecode", "xmp"}
)
"""Tags that tell of the source's file, not of the work: wrong in another one."""

_LONGEST_TAG: Final = 1 << 16
"""Characters. Lyrics and licences are shorter; a tag of megabytes is a mistake or an attack on whoever reads it."""

_MOST_TAGS: Final = 256

_SUBTITLE_COPIED: Final = {
    ".mp4": frozenset({"mov_text"}),
    ".mov": frozenset({"mov_text"}),
    ".mkv": frozenset({"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle"}),
    ".webm": frozenset({"webvtt"}),
}
_SUBTITLE_ENCODER: Final = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}
_TEXT: Final = frozenset({"subrip", "ass", "webvtt", "mov_text", "text"})
_MS: Final = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Extras:
    """The extras of the video at `path`.

    start_s: when its first frame is shown, s: that becomes 0. tags: lower-case names. chapters: as PyAV has them.
    """

    path: Path
    start_s: Fraction
    tags: Mapping[str, str]
    chapters: tuple[Chapter, ...]

    @classmethod
    def of(cls, path: Path, start_s: Fraction) -> Extras:
        """Read the extras of a video whose first frame is shown at `start_s`; raises `InputError`."""
        with open_media(path) as container:
            tags = dict(_tags(container, path))
            return cls(path, start_s, tags, tuple(container.chapters()))

    def chapters_until(self, duration: Fraction) -> list[Chapter]:
        """Return the chapters that begin before `duration` s, cut there, for `OutputContainer.set_chapters`."""
        kept: list[Chapter] = []
        for chapter in self.chapters:
            unit = chapter["time_base"] or _MS
            start = max(Fraction(0), chapter["start"] * unit - self.start_s)
            end = min(chapter["end"] * unit - self.start_s, duration)
            if start < end:
                named = {key: value[:_LONGEST_TAG] for key, value in chapter["metadata"].items()}
                kept.append(
                    {
                        "id": len(kept) + 1,
                        "start": round(start / _MS),
                        "end": round(end / _MS),
                        "time_base": _MS,
                        "metadata": named,
                    }
                )
        return kept

    def add_subtitles(
        self, container: OutputContainer, suffix: str, duration: Fraction, stack: contextlib.ExitStack
    ) -> Iterator[Packet[SubtitleStream]]:
        """Add the subtitle streams that a file ending in `suffix` can hold; returns their packets, still to be muxed.

        Text is converted where the container has another format for it. What it cannot hold is left out with one
        warning. `stack` keeps the source open until the packets are muxed.
        """
        with open_media(self.path) as probe:
            found = [stream.index for stream in probe.streams.subtitles]
        if not found:
            return iter(())
        source = stack.enter_context(open_media(self.path))
        carried: dict[int, _Track] = {}
        for stream in source.streams.subtitles:
            try:
                carried[stream.index] = _Track(container, stream, suffix)
            except (FFmpegError, ValueError, _NoPlaceError) as error:
                log.warning(
                    "a %s file does not hold the subtitles %d of %s (%s); they are left out",
                    suffix,
                    stream.index,
                    self.path.name,
                    reason(error),
                )
        return self._packets(source, carried, duration)

    def _packets(
        self, source: InputContainer, carried: Mapping[int, _Track], duration: Fraction
    ) -> Iterator[Packet[SubtitleStream]]:
        if not carried:
            return
        try:
            streams = [cast("SubtitleStream", source.streams[index]) for index in carried]
            for packet in demux(source, *streams):
                if packet.pts is None or not packet.size:
                    continue
                start = packet.pts * packet.time_base - self.start_s
                if 0 <= start < duration:
                    yield from carried[packet.stream_index].packets(packet, start)
        except FFmpegError as error:
            log.warning("the subtitles of %s are damaged (%s); their rest is left out", self.path.name, reason(error))


class _NoPlaceError(Exception):
    """The container has no format for these subtitles."""


class _Track:
    """One subtitle stream of the output: copied, or decoded and encoded."""

    def __init__(self, container: OutputContainer, stream: SubtitleStream, suffix: str) -> None:
        codec = stream.codec_context.codec.canonical_name
        self._decoder: SubtitleCodecContext | None = None
        if codec in _SUBTITLE_COPIED[suffix]:
            self._into = container.add_stream_from_template(stream)
        elif codec in _TEXT:
            self._decoder = stream.codec_context
            self._decoder.open(strict=False)
            header = self._decoder.subtitle_header
            into = container.add_stream(_SUBTITLE_ENCODER[suffix])
            assert isinstance(into, SubtitleStream)
            into.codec_context.time_base = _MS
            into.codec_context.subtitle_header = header
            self._into = into
        else:
            raise _NoPlaceError(codec)
        for key in ("language", "title"):
            if key in stream.metadata:
                self._into.metadata[key] = stream.metadata[key][:_LONGEST_TAG]

    def packets(self, packet: Packet[SubtitleStream], start: Fraction) -> Iterator[Packet[SubtitleStream]]:
        """Yield the packet, to be shown at `start` s, as the output has it."""
        lasting = Fraction(packet.duration or 0) * packet.time_base
        if self._decoder is not None:
            shown = self._decoder.decode2(packet)
            if shown is None or not len(shown):
                return
            packet = self._into.codec_context.encode_subtitle(shown)
        packet.time_base = _MS
        packet.pts = packet.dts = round(start / _MS)
        packet.duration = round(lasting / _MS)
        packet.stream = self._into
        yield packet


def _tags(container: InputContainer, path: Path) -> Iterator[tuple[str, str]]:
    kept = 0
    for key, value in container.metadata.items():
        if key.lower() in _OF_THE_FILE:
            continue
        if len(value) > _LONGEST_TAG or len(key) > _LONGEST_TAG or kept == _MOST_TAGS:
            log.warning("%s has more or longer tags than are kept; %r is left out", path.name, key[:40])
            continue
        kept += 1
        yield key.lower(), value
