"""The finished file: segments joined without encoding again, the new sound beside them, renamed when whole."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from lipsync_core.errors import InputError, OutputError
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.extras import Extras
from lipsync_core.media.orientation import AS_STORED
from lipsync_core.media.probe import open_media, shown
from lipsync_core.media.sound import SoundPlan, add_sound
from lipsync_core.media.timeline import Timeline
from lipsync_core.media.writer import BITEXACT, SEGMENT_TICK, EncodeSettings, cannot_write, codec_for

_FORMATS: Final = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}

_RESUME_CURE: Final = "Run it again with --no-resume."


def check_output(output: str | Path, *, overwrite: bool) -> Path:
    """Return the output's path if it can be written; raises `OutputError` before any work is done.

    Wrong are: a suffix no video is written to, a folder that does not exist or cannot be written, a name that is a
    folder, and, without `overwrite`, a file that exists.
    """
    path = Path(output)
    codec_for(path)
    try:
        _partial(path).exists()  # the longest name that is made of it
    except OSError as error:
        raise OutputError(f"{shown(path)} cannot be written: {error.strerror}.", "Choose another name.") from error
    if path.is_dir():
        raise OutputError(f"{str(path)!r} is a folder.", "Give the name of a file in it.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {str(path.parent)!r}.", "Make it first, or choose another.")
    if path.exists() and not overwrite:
        raise OutputError(f"{str(path)!r} exists already.", "Add --overwrite, or choose another name.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder {str(path.parent)!r} may not be written.", "Choose another one.")
    return path


def _partial(output: Path, folder: Path | None = None) -> Path:
    return (folder or output.parent) / f".{output.name}.partial{output.suffix.lower()}"


def mux(
    segments: Sequence[Path],
    timeline: Timeline,
    audio: AudioSource | str | Path,
    output: str | Path,
    *,
    settings: EncodeSettings,
    metadata: Mapping[str, str] | None = None,
    audio_offset_s: float = 0.0,
    extras: Extras | None = None,
    folder: Path | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Join whole segments and the sound into `output`.

    Frame k of the joined segments is shown at `timeline.pts[k]`, the last one until `timeline.end_pts`. The sound is
    copied where the container takes it and its length fits, else encoded (`sound`); a positive `audio_offset_s`
    starts it later. `extras` of the source are kept as far as the container holds them; `metadata` goes before their
    tags. The file is written in `folder` (default: the output's; the same file system) under a temporary name, changed
    by `finish`, flushed to disk and renamed: a file with the final name is always whole. Equal inputs give equal bytes.

    Raises `OutputError` where it cannot be written, or where the segments are not the timeline's.
    """
    output = Path(output)
    source = audio if isinstance(audio, AudioSource) else AudioSource(audio)
    suffix = output.suffix.lower()
    codec_for(output)
    partial = _partial(output, folder)
    plan = SoundPlan(source, suffix, timeline.duration, 1 / timeline.fps, audio_offset_s)
    try:
        with contextlib.ExitStack() as stack:
            faststart = {"movflags": "+faststart"} if suffix in {".mp4", ".mov"} else {}
            container = stack.enter_context(
                av.open(f"file:{partial}", "w", format=_FORMATS[suffix], container_options=faststart)
            )
            container.flags |= BITEXACT
            container.metadata.update({**(extras.tags if extras else {}), **(metadata or {})})
            pictures = _video_packets(container, segments, timeline, settings, stack)
            sound = add_sound(container, plan, stack)
            written: Iterator[Packet[Any]] = iter(())
            if extras is not None:
                container.set_chapters(extras.chapters_until(timeline.duration))
                written = extras.add_subtitles(container, suffix, timeline.duration, stack)
            for packet in _interleaved(pictures, sound, written):
                container.mux(packet)
        if finish is not None:
            finish(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(output)
    except (FFmpegError, OSError) as error:
        raise cannot_write(output, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _interleaved(*streams: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    """Yield the packets of all streams by decoding time, so that the muxer never has to hold many."""

    def when(packet: Packet[Any]) -> Fraction:
        stamp = packet.dts if packet.dts is not None else packet.pts
        return (stamp or 0) * packet.time_base

    return heapq.merge(*streams, key=when)


def _video_packets(
    container: OutputContainer,
    segments: Sequence[Path],
    timeline: Timeline,
    settings: EncodeSettings,
    stack: contextlib.ExitStack,
) -> Iterator[Packet[VideoStream]]:
    """Add the video stream; returns the packets of all segments with the timeline's times, in decoding order."""
    layouts = [_presentation_order(path) for path in segments]
    count = sum(map(len, layouts))
    if count != len(timeline) or any(sorted(order) != list(range(len(order))) for order in layouts):
        raise OutputError(f"The segments hold {count} frames of {len(timeline)}.", _RESUME_CURE)
    # How far decoding order runs ahead of presentation, over all segments (B-frames).
    delay = max(k - shown for order in layouts for k, shown in enumerate(order))
    template = _video_of(stack.enter_context(open_media(segments[0])))
    stream = container.add_stream_from_template(template)
    stream.time_base = timeline.time_base
    # Matroska takes this for "every frame lasts so long".
    stream.codec_context.framerate = timeline.fps if timeline.time_base == 1 / timeline.fps else Fraction(0)
    if settings.orientation != AS_STORED:
        stream.set_display_matrix(settings.orientation.matrix)
    return _retimed(segments, layouts, timeline, delay, stream)


def _retimed(
    segments: Sequence[Path], layouts: Sequence[list[int]], timeline: Timeline, delay: int, stream: VideoStream
) -> Iterator[Packet[VideoStream]]:
    pts = timeline.pts.tolist()
    ends = [*pts[1:], timeline.end_pts]
    step = ends[0] - pts[0]
    extradata = stream.codec_context.extradata
    first = 0
    for path, order in zip(segments, layouts, strict=True):
        with open_media(path) as container:
            source = _video_of(container)
            if source.codec_context.extradata != extradata:
                raise OutputError(f"The segment {path.name} was encoded with other settings.", _RESUME_CURE)
            packets = (packet for packet in container.demux(source) if packet.size)
            for k, (packet, shown) in enumerate(zip(packets, order, strict=True), first):
                packet.time_base = timeline.time_base
                packet.pts = pts[first + shown]
                packet.dts = pts[k - delay] if k >= delay else pts[0] - (delay - k) * step
                packet.duration = ends[first + shown] - pts[first + shown]
                packet.stream = stream
                yield packet
        first += len(order)


def frames_in(segment: Path) -> int:
    """Return how many frames a segment holds; 0 where it is damaged."""
    try:
        return len(_presentation_order(segment))
    except (FFmpegError, InputError, LookupError):
        return 0


def _presentation_order(segment: Path) -> list[int]:
    """Return for each packet of a segment, in decoding order, the number of the frame it holds."""
    with open_media(segment) as container:
        stream = _video_of(container)
        tick = SEGMENT_TICK / (stream.time_base or SEGMENT_TICK)
        return [round(packet.pts / tick) for packet in container.demux(stream) if packet.pts is not None]


def _video_of(container: InputContainer) -> VideoStream:
    return container.streams.video[0]
