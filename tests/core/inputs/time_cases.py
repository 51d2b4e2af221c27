"""Videos of every rate, with gaps, odd starts, lost or wrong times, and more than one stream."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from tests.core.media.conftest import Clips
from tests.core.media.test_extras import talk

from .case import Case, Made, made_at, steady

_GROUP: Final = "Times"
_RATES: Final = {
    "1 fps": Fraction(1),
    "12 fps": Fraction(12),
    "23.976 fps": Fraction(24000, 1001),
    "24 fps": Fraction(24),
    "29.97 fps": Fraction(30000, 1001),
    "30 fps": Fraction(30),
    "50 fps": Fraction(50),
    "59.94 fps": Fraction(60000, 1001),
    "60 fps": Fraction(60),
    "120 fps": Fraction(120),
}
_MS: Final = Fraction(1, 1000)
# Phone-like: near 30 fps, a pause of a second, then near 15 fps.
_VARIABLE: Final = [0, 33, 67, 100, 134, 1134, 1168, 1201, 1267, 1334, 1400, 1467]


def _with_sound(clips: Clips, video: Path, seconds: float, times: Sequence[float], **more: Any) -> Made:
    sound = clips.sound("tone.wav", clips.tone(seconds, 16000, 1), "pcm_s16le", 16000)
    return Made(video, sound, more.pop("numbers", range(len(times))), times, **more)


def _variable(clips: Clips, suffix: str, start_ms: int = 0, output: str = "out.mp4", **how: Any) -> Made:
    pts = [start_ms + ms for ms in _VARIABLE]
    video = clips.video(f"in.{suffix}", n=len(pts), pts=pts, time_base=_MS, **how)
    times = [ms / 1000 for ms in _VARIABLE]
    return _with_sound(clips, video, 1.5, times, output=output)


def _started(clips: Clips, suffix: str, ticks: int, **how: Any) -> Made:
    video = clips.video(f"in.{suffix}", n=12, pts=[ticks + i for i in range(12)], time_base=Fraction(1, 25), **how)
    return _with_sound(clips, video, 0.48, steady(12))


def _edited(clips: Clips) -> Made:
    """Players leave out what lies before time 0."""
    video = clips.video("in.mp4", n=12, pts=[i - 5 for i in range(12)], time_base=Fraction(1, 25), options={"bf": "2"})
    return _with_sound(clips, video, 7 / 25, steady(7), numbers=range(5, 12))


def _raw(clips: Clips) -> Made:
    """A bare H.264 stream: no container, no times."""
    return made_at(clips, "in.h264", "libx264", options={"bf": "2"})


def _wrong_count(clips: Clips) -> Made:
    """An AVI whose header says there are 5000 frames (dwTotalFrames of avih, dwLength of strh)."""
    made = made_at(clips, "in.avi", "mpeg4")
    data = bytearray(made.video.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, 5000)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 5000)
    made.video.write_bytes(data)
    return made


def _wrong_duration(clips: Clips) -> Made:
    """An MP4 whose headers say it lasts an hour (mvhd, tkhd and mdhd, each in its own ticks)."""
    made = made_at(clips, "in.mp4", "libx264")
    data = bytearray(made.video.read_bytes())
    for box, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        struct.pack_into(">I", data, data.index(box) + at, 3600 * 1000)
    made.video.write_bytes(data)
    return made


def _cut_off(clips: Clips) -> Made:
    """A recording that stopped in the middle: a transport stream, whose end is missing."""
    made = made_at(clips, "in.ts", "mpeg2video", n=24, options={"g": "1"})
    packets = made.video.read_bytes()
    size = 188  # of a transport packet (ISO/IEC 13818-1)
    made.video.write_bytes(packets[: len(packets) // size * 2 // 3 * size])
    with av.open(str(made.video)) as container:
        left = sum(1 for _ in container.decode(video=0))
    assert 8 < left < 24
    return _with_sound(clips, made.video, left / 25, steady(left))


def _two_videos(clips: Clips) -> Made:
    path = clips.folder / "in.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(12):
            for k, stream in enumerate(streams):
                frame = av.VideoFrame.from_ndarray(clips.numbered(i + 1000 * k), "rgb24")
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return _with_sound(clips, path, 0.48, steady(12))


def _cover_first(clips: Clips) -> Made:
    """A cover picture before the video, as music shops write it."""
    made = made_at(clips, "plain.mp4", "libx264")
    path, picture = clips.folder / "in.mp4", clips.video("cover.png", "png", n=1, pix_fmt="rgb24")
    with (
        av.open(str(path), "w") as container,
        av.open(str(picture)) as art,
        av.open(str(made.video)) as plain,
    ):
        cover = container.add_stream_from_template(art.streams.video[0], opaque=True)
        cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream_from_template(plain.streams.video[0])
        for source, into in ((art, cover), (plain, video)):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = into
                    container.mux(packet)
    return _with_sound(clips, path, 0.48, steady(12))


def _two_sounds(clips: Clips) -> Made:
    path = clips.folder / "in.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        heard = [container.add_stream("flac", rate=16000, layout="mono") for _ in range(2)]
        for i in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clips.numbered(i), "rgb24")))
        container.mux(stream.encode(None))
        for track in heard:
            for packet in clips._encoded(track, clips.tone(0.48, 16000, 1), 16000):
                container.mux(packet)
    return _with_sound(clips, path, 0.48, steady(12))


def _told(clips: Clips) -> Made:
    video = talk(
        clips.folder / "in.mkv",
        clips,
        subtitles=["subrip", "ass"],
        tags={"title": "A talk"},
        chapters=[(0, 900, "one"), (900, 2000, "two")],
    )
    return _with_sound(clips, video, 2.0, steady(50))


def _all_told(made: Made, output: Path) -> None:
    with av.open(str(output)) as container:
        assert len(container.streams.subtitles) == 2
        assert [c["metadata"]["title"] for c in container.chapters()] == ["one", "two"]
        assert container.metadata["title"] == "A talk"


def _one_sound(made: Made, output: Path) -> None:
    with av.open(str(output)) as container:
        assert len(container.streams.audio) == 1


def time_cases() -> Iterator[Case]:
    """Yield the rows about times and streams."""
    for name, rate in _RATES.items():
        for output in ("mp4", "mkv") if rate.denominator > 1 else ("mp4",):
            yield Case(
                _GROUP,
                f"{name}, to {output}",
                lambda c, r=rate, o=output: made_at(c, "in.mp4", "libx264", rate=r, output=f"out.{o}"),
            )
    for suffix in ("mp4", "mkv"):
        for output in ("mp4", "mov", "mkv", "webm"):
            yield Case(
                _GROUP,
                f"variable rate with a gap, {suffix} to {output}",
                lambda c, s=suffix, o=output: _variable(c, s, output=f"out.{o}"),
            )
    yield Case(_GROUP, "variable rate, B-frames, first frame at 7 s", lambda c: _variable(c, "mkv", 7000))
    for name, suffix, ticks in (
        ("first frame at 10 s in MP4", "mp4", 250),
        ("first frame at 10 s in MKV", "mkv", 250),
        ("first frame at an hour in TS", "ts", 90000),
        ("first frame at −2 s in MKV", "mkv", -50),
        ("first frame at −2 s in TS", "ts", -50),
    ):
        yield Case(_GROUP, name, lambda c, s=suffix, t=ticks: _started(c, s, t))
    frames = {"bf": "3", "b_strategy": "0", "g": "6"}
    yield Case(
        _GROUP,
        "B-frames behind an edit list",
        lambda c: made_at(c, "in.mp4", "libx264", options=frames, container_options={"use_editlist": "1"}),
    )
    yield Case(_GROUP, "five frames cut off by an edit list", _edited)
    yield Case(
        _GROUP,
        "B-frames, no edit list",
        lambda c: made_at(c, "in.mp4", "libx264", options=frames, container_options={"use_editlist": "0"}),
    )
    yield Case(
        _GROUP,
        "open groups of pictures",
        lambda c: made_at(c, "in.mp4", "libx264", n=24, options={**frames, "x264-params": "open-gop=1:keyint=6"}),
    )
    yield Case(
        _GROUP,
        "in fragments",
        lambda c: made_at(c, "in.mp4", "libx264", container_options={"movflags": "frag_keyframe+empty_moov"}),
    )
    yield Case(_GROUP, "no times at all (bare H.264)", _raw)
    yield Case(_GROUP, "a header with a wrong number of frames", _wrong_count)
    yield Case(_GROUP, "a header that says an hour", _wrong_duration)
    yield Case(_GROUP, "the end is missing", _cut_off)
    yield Case(_GROUP, "one frame", lambda c: made_at(c, "in.mp4", "libx264", n=1))
    yield Case(_GROUP, "two frames", lambda c: made_at(c, "in.mp4", "libx264", n=2))
    yield Case("Streams", "two videos: the first", _two_videos)
    yield Case("Streams", "a cover picture before the video", _cover_first)
    yield Case("Streams", "two sounds: the new one in their place", _two_sounds, also=_one_sound)
    yield Case("Streams", "subtitles, chapters, tags: kept", _told, also=_all_told)
