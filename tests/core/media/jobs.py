"""Small finished jobs for the tests of muxing, and what a container says about its streams."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lipsync_core.media.timeline import Timeline
from lipsync_core.media.writer import EncodeSettings, SegmentWriter
from lipsync_core.types import FrameBatch

NTSC = Fraction(30000, 1001)


def timeline_of(pts: Any, time_base: Fraction, end: int) -> Timeline:
    pts = np.asarray(pts, np.int64)
    n = len(pts)
    return Timeline(np.arange(n), pts, time_base, end, np.ones(n, np.bool_), n / (end * time_base))


def steady(n: int, fps: Fraction = Fraction(25)) -> Timeline:
    return timeline_of(np.arange(n), 1 / fps, n)


def job(
    clips: Any, folder: Path, lengths: list[int], suffix: str = ".mp4", **how: Any
) -> tuple[list[Path], EncodeSettings]:
    """Write segments of these lengths, frames numbered through."""
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    made = EncodeSettings(**{"width": 64, "height": 48, "fps": Fraction(25), "codec": codec} | how)
    paths = []
    first = 0
    for k, n in enumerate(lengths):
        paths.append(folder / f"segment{k}.mkv")
        with SegmentWriter(paths[-1], made) as writer:
            writer.write(FrameBatch(first, np.stack([clips.numbered(first + i) for i in range(n)])))
        first += n
    return paths, made


def streams(path: Path) -> dict[str, dict[str, Any]]:
    """Return codec, rate, channels and how long the container says each stream lasts, from its packets."""
    found = {}
    with av.open(str(path)) as container:
        for stream in container.streams:
            ends, dts = [], []
            container.seek(0)
            for packet in container.demux(stream):
                if packet.pts is not None:
                    ends.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    dts.append(packet.dts)
            known = [d for d in dts if d is not None]
            assert all(a < b for a, b in itertools.pairwise(known)), "dts must rise"
            said = float(stream.duration * stream.time_base) if stream.duration else max(ends)
            found[stream.type] = {
                "codec": stream.codec_context.name,
                "seconds": said,
                "rate": stream.codec_context.rate if stream.type == "audio" else stream.average_rate,
                "channels": stream.codec_context.channels if stream.type == "audio" else None,
            }
    return found
