"""The finished file: every frame at its time, the sound beside it, whole or absent."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipsync_core.errors import OutputError
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.index import FrameIndex
from lipsync_core.media.mux import check_output, mux
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import build_timeline
from lipsync_core.media.writer import EncodeSettings, SegmentWriter
from lipsync_core.types import FrameBatch

from .jobs import NTSC, job, steady, streams, timeline_of


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("lengths", [[30], [1, 1, 28], [13, 2, 1, 14]])
def test_every_frame_at_its_time(clips: Any, tmp_path: Path, suffix: str, lengths: list[int]) -> None:
    segments, made = job(clips, tmp_path, lengths, suffix)
    sound = clips.sound("speech.wav", clips.tone(1.2, 44100), "pcm_s16le")
    out = tmp_path / f"out{suffix}"
    mux(segments, steady(30), sound, out, settings=made)
    reader = VideoReader(out)
    index = reader.index()
    assert [clips.number(p.pixels) for p in reader.pictures()] == list(range(30))
    assert (index.pts * index.time_base * 25).tolist() == list(range(30))
    assert reader.info.fps == 25
    facts = streams(out)
    assert abs(facts["video"]["seconds"] - 1.2) < 0.002
    assert abs(facts["audio"]["seconds"] - 1.2) < 0.04
    assert abs(AudioSource(out).duration - 1.2) < 0.04
    assert facts["audio"]["channels"] == 2
    assert facts["audio"]["rate"] == (48000 if suffix == ".webm" else 44100)
    assert facts["audio"]["codec"] == {".mov": "pcm_s16le", ".mkv": "flac", ".webm": "opus"}.get(suffix, "aac")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_variable_times_and_the_last_frame(clips: Any, tmp_path: Path, suffix: str) -> None:
    pts = [0, 20, 90, 91, 200, 240, 500, 560, 600, 641]
    segments, made = job(clips, tmp_path, [4, 6], suffix)
    out = tmp_path / f"out{suffix}"
    mux(
        segments,
        timeline_of(pts, Fraction(1, 1000), 900),
        clips.sound("v.wav", clips.tone(0.9), "pcm_s16le"),
        out,
        settings=made,
    )
    reader = VideoReader(out)
    index = reader.index()
    assert (index.pts * index.time_base * 1000).tolist() == pts
    assert [clips.number(p.pixels) for p in reader.pictures()] == list(range(10))
    with av.open(str(out)) as container:
        if suffix == ".mp4":
            data = out.read_bytes()
            assert (
                int.from_bytes(data[(at := data.index(b"elst") + 12) : at + 4], "big") == 900
            )  # ms, the first track's
        else:
            assert container.streams.video[0].metadata["DURATION"] == "00:00:00.900000000"


def test_ntsc_is_exact(clips: Any, tmp_path: Path) -> None:
    segments, made = job(clips, tmp_path, [40, 50], fps=NTSC)
    out = tmp_path / "out.mp4"
    mux(
        segments,
        steady(90, NTSC),
        clips.sound("n.wav", clips.tone(3.0, 16000, 1), "pcm_s16le", 16000),
        out,
        settings=made,
    )
    reader = VideoReader(out)
    index = reader.index()
    assert reader.info.fps == NTSC
    assert [p * index.time_base for p in index.pts.tolist()] == [i / NTSC for i in range(90)]
    assert index.duration == 90 / NTSC


@settings(max_examples=10)
@given(data=st.data())
def test_any_times_any_segments(clips: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """B-frames of segments of any length at any times: presentation exact, decoding times rising and not late."""
    folder = tmp_path_factory.mktemp("any")
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    n = sum(lengths)
    gaps = data.draw(st.lists(st.integers(1, 300), min_size=n, max_size=n))
    pts = np.cumsum([0, *gaps[:-1]])
    segments, made = job(clips, folder, lengths)
    out = folder / "out.mp4"
    sound = clips.sound("any.wav", clips.tone(0.3, 16000, 1), "pcm_s16le", 16000)
    mux(segments, timeline_of(pts, Fraction(1, 1000), int(pts[-1]) + gaps[-1]), sound, out, settings=made)
    reader = VideoReader(out)
    index = reader.index()
    assert [p * index.time_base * 1000 for p in index.pts.tolist()] == pts.tolist()
    assert [clips.number(p.pixels) for p in reader.pictures()] == list(range(n))
    with av.open(str(out)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    assert all(a.dts < b.dts for a, b in itertools.pairwise(packets))
    assert all(p.dts <= p.pts for p in packets)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("turn", [(90, False, False), (180, False, False), (270, False, False), (0, True, False)])
def test_orientation_colour_and_shape_are_kept(
    clips: Any, tmp_path: Path, suffix: str, turn: tuple[float, bool, bool]
) -> None:
    tags = {
        "color_range": 1,
        "colorspace": 1,
        "color_primaries": 1,
        "color_trc": 1,
        "sample_aspect_ratio": Fraction(1) if suffix == ".webm" else Fraction(4, 3),
    }
    upright = [clips.numbered(n) for n in range(6)]
    turned = [np.ascontiguousarray(np.rot90(p[:, ::-1] if turn[1] else p, -int(turn[0]) // 90)) for p in upright]
    size = (turned[0].shape[1], turned[0].shape[0])
    reader = VideoReader(
        clips.video(f"t{turn[0]}{turn[1]}.mp4", n=6, size=size, pictures=turned, rotation=turn, context=tags)
    )
    made = EncodeSettings.for_video(reader, tmp_path / f"x{suffix}")
    segment = tmp_path / "s.mkv"
    with SegmentWriter(segment, made) as writer:
        writer.write(FrameBatch(0, np.stack([p.pixels for p in reader.pictures()])))
    out = tmp_path / f"out{suffix}"
    mux([segment], steady(6), clips.sound("o.wav", clips.tone(0.24), "pcm_s16le"), out, settings=made)
    again = VideoReader(out)
    assert (again.info.width, again.info.height) == (64, 48)
    assert (again.orientation, again.rotation, again.color) == (reader.orientation, reader.rotation, reader.color)
    assert again.sample_aspect_ratio == reader.sample_aspect_ratio
    assert [clips.number(p.pixels) for p in again.pictures()] == list(range(6))
    stored = next(iter(av.open(str(out)).decode(video=0)))
    assert (stored.width, stored.height) == size


def test_equal_inputs_give_equal_bytes(clips: Any, tmp_path: Path) -> None:
    segments, made = job(clips, tmp_path, [10, 10])
    sound = clips.sound("equal.wav", clips.tone(0.8), "pcm_s16le")
    for suffix in (".mp4", ".mkv"):
        for name in ("a", "b"):
            mux(segments, steady(20), sound, tmp_path / f"{name}{suffix}", settings=made, metadata={"title": "equal"})
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
        with av.open(str(tmp_path / f"a{suffix}")) as container:
            assert {k.lower(): v for k, v in container.metadata.items()}["title"] == "equal"


def test_mp4_starts_fast(clips: Any, tmp_path: Path) -> None:
    segments, made = job(clips, tmp_path, [10])
    out = tmp_path / "out.mp4"
    mux(segments, steady(10), clips.sound("fast.wav", clips.tone(0.4), "pcm_s16le"), out, settings=made)
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_segments_that_are_not_the_timelines(clips: Any, tmp_path: Path) -> None:
    segments, made = job(clips, tmp_path, [10, 10])
    sound = clips.sound("seg.wav", clips.tone(0.8), "pcm_s16le")
    with pytest.raises(OutputError, match="hold 20 frames of 21"):
        mux(segments, steady(21), sound, tmp_path / "out.mp4", settings=made)
    other = tmp_path / "other"
    other.mkdir()
    foreign, _ = job(clips, other, [10], crf=40, fps=Fraction(50))
    with pytest.raises(OutputError, match="other settings"):
        mux([segments[0], foreign[0]], steady(20), sound, tmp_path / "out.mp4", settings=made)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "segment0.mkv", "segment1.mkv"]


def test_an_older_output_survives_a_failure(clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments, made = job(clips, tmp_path, [10])
    out = tmp_path / "out.mp4"
    out.write_bytes(b"old")
    sound = clips.sound("old.wav", clips.tone(0.4), "pcm_s16le")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        mux(segments, steady(10), sound, out, settings=made)
    assert out.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    mux(segments, steady(10), sound, out, settings=made)
    assert len(VideoReader(out).index()) == 10


@pytest.mark.parametrize(
    "name", ["a b.mp4", "-o.mp4", "x:y.mp4", "100%d.mkv", "q'\".mp4", "new\nline.mp4", "tête😀.webm"]
)
def test_awkward_output_names(clips: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segments, made = job(clips, tmp_path, [5], Path(name).suffix)
    monkeypatch.chdir(tmp_path)
    mux(segments, steady(5), clips.sound("awk.wav", clips.tone(0.2), "pcm_s16le"), Path(name), settings=made)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["segment0.mkv", name])
    assert len(VideoReader(tmp_path / name).index()) == 5


def test_check_output(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new.mp4", overwrite=False) == tmp_path / "new.mp4"
    (tmp_path / "old.mkv").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    assert check_output(str(tmp_path / "old.mkv"), overwrite=True).name == "old.mkv"
    for path, message in {
        tmp_path / "old.mkv": "exists already",
        tmp_path / "folder.mp4": "is a folder",
        tmp_path / "none" / "a.mp4": "no folder",
        tmp_path / "a.avi": r"\.webm",
    }.items():
        with pytest.raises(OutputError, match=message):
            check_output(path, overwrite=False)


def test_ping_pong_job_from_end_to_end(clips: Any, tmp_path: Path) -> None:
    """Read, lay out, reorder, encode in segments, mux: what the pipeline does, without changing a pixel."""
    source = clips.video("whole.mkv", n=20, rate=NTSC, size=(64, 48), options={"bf": "2"})
    reader = VideoReader(source)
    index: FrameIndex = reader.index()
    audio = AudioSource(clips.sound("whole.wav", clips.tone(1.7, 44100), "pcm_s16le"))
    timeline = build_timeline(index, reader.info.fps, audio_duration=audio.duration)
    made = EncodeSettings.for_video(reader, tmp_path / "out.mp4", fps=timeline.fps)
    frames = reader.in_order(index, timeline.source_frames)
    segments = []
    for first in range(0, len(timeline), 16):
        segments.append(tmp_path / f"{first}.mkv")
        with SegmentWriter(segments[-1], made) as writer:
            for _ in range(min(16, len(timeline) - first)):
                writer.write(FrameBatch(0, next(frames)[None]))
    mux(segments, timeline, audio, tmp_path / "out.mp4", settings=made)
    out = VideoReader(tmp_path / "out.mp4")
    assert len(timeline) == round(1.7 * NTSC) == 51
    want = [*range(20), *range(19, -1, -1), *range(11)]
    assert [clips.number(p.pixels) for p in out.pictures()] == want
    assert out.info.fps == NTSC
    facts = streams(tmp_path / "out.mp4")
    assert abs(facts["video"]["seconds"] - facts["audio"]["seconds"]) <= 1 / NTSC
