"""What a video carries beside pictures and sound is in the output too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.subtitles.subtitle import SubtitleSet

from lipsync_core.media.extras import Extras
from lipsync_core.media.mux import mux

from .jobs import job, steady

LINES = ((0.2, 0.6, "Hello"), (0.7, 0.9, "Grüße\nzwei"), (1.5, 1.8, "after the end"))
FIELDS = (
    "Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, "
    "StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, "
    "Encoding"
)
HEADER = (
    f"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: {FIELDS}\n"
    "Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n\n"
    "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
).encode()
MS = Fraction(1, 1000)


def talk(
    path: Path,
    clips: Any,
    *,
    subtitles: Sequence[str] = (),
    tags: dict[str, str] | None = None,
    chapters: Sequence[tuple[int, int, str]] = (),
    codec: str = "libx264",
) -> Path:
    """Write two seconds of video with these subtitle codecs, tags and chapters (ms)."""
    with av.open(str(path), "w") as container:
        container.metadata.update(tags or {})
        if chapters:
            container.set_chapters(
                [
                    {"id": k, "start": a, "end": b, "time_base": MS, "metadata": {"title": title}}
                    for k, (a, b, title) in enumerate(chapters, 1)
                ]
            )
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tracks = [container.add_stream(name) for name in subtitles]
        for track in tracks:
            track.metadata["language"] = "deu"
            track.codec_context.time_base = MS
            track.codec_context.subtitle_header = HEADER
        for i in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clips.numbered(i), "rgb24")))
        container.mux(stream.encode(None))
        for track in tracks:
            for start, end, text in LINES:
                event = "0,0,Default,,0,0,0,," + text.replace("\n", "\\N")
                lasting = round((end - start) * 1000)
                shown = SubtitleSet.create(event.encode(), 0, lasting, round(start * 1e6))
                packet = track.codec_context.encode_subtitle(shown)
                packet.time_base, packet.stream = MS, track
                packet.pts = packet.dts = round(start * 1000)
                packet.duration = lasting
                container.mux(packet)
    return path


def written(clips: Any, tmp_path: Path, source: Path, suffix: str, start_s: Fraction = Fraction(0)) -> Path:
    """Mux one second with the extras of `source`."""
    segments, settings = job(clips, tmp_path, [25], suffix)
    sound = clips.sound("extras.wav", clips.tone(1.0), "pcm_s16le")
    output = tmp_path / f"out{suffix}"
    mux(segments, steady(25), sound, output, settings=settings, extras=Extras.of(source, start_s))
    return output


def texts(path: Path) -> list[tuple[str, str | None, list[tuple[float, float, str]]]]:
    """Return codec, language and the lines of each subtitle stream."""
    found = []
    with av.open(str(path)) as container:
        for stream in container.streams.subtitles:
            lines = []
            container.seek(0)
            for packet in container.demux(stream):
                shown = stream.codec_context.decode2(packet) if packet.size else None
                for rect in shown or []:
                    text = re.sub(r"\{.*?\}", "", rect.ass.decode().split(",", 8)[8]).replace("\\N", "\n")
                    start, lasting = (float(v * packet.time_base) for v in (packet.pts, packet.duration))
                    lines.append((round(start, 2), round(start + lasting, 2), text))
            found.append((stream.codec_context.codec.canonical_name, stream.metadata.get("language"), lines))
    return found


SUBTITLES = {
    ("subrip", ".mkv"): "subrip",
    ("subrip", ".mp4"): "mov_text",
    ("subrip", ".mov"): "mov_text",
    ("subrip", ".webm"): "webvtt",
    ("ass", ".mkv"): "ass",
    ("ass", ".mp4"): "mov_text",
    ("mov_text", ".mp4"): "mov_text",
    ("mov_text", ".mkv"): "subrip",
    ("mov_text", ".webm"): "webvtt",
    ("webvtt", ".mkv"): "webvtt",
}


@pytest.mark.parametrize(("given", "suffix"), SUBTITLES)
def test_subtitles(clips: Any, tmp_path: Path, given: str, suffix: str) -> None:
    source = talk(tmp_path / ("in.mp4" if given == "mov_text" else "in.mkv"), clips, subtitles=[given, given])
    output = written(clips, tmp_path, source, suffix)
    expected = [(0.2, 0.6, "Hello"), (0.7, 0.9, "Grüße\nzwei")]
    found = texts(output)
    assert [codec for codec, _, _ in found] == [SUBTITLES[given, suffix]] * 2
    for _, language, lines in found:
        assert language == ("deu" if suffix != ".mov" else language)  # QuickTime's own codes have gaps
        assert [text for *_, text in lines] == [text for *_, text in expected]
        for (a, b, _), (c, d, _) in zip(lines, expected, strict=True):
            assert abs(a - c) < 0.011
            assert abs(b - d) < 0.011


def test_a_source_that_starts_later(clips: Any, tmp_path: Path) -> None:
    source = talk(tmp_path / "in.mkv", clips, subtitles=["subrip"], chapters=[(0, 400, "one"), (400, 2000, "two")])
    output = written(clips, tmp_path, source, ".mkv", Fraction(1, 2))
    assert [text for *_, text in texts(output)[0][2]] == ["Grüße\nzwei"]
    assert texts(output)[0][2][0][0] == pytest.approx(0.2, abs=0.01)
    with av.open(str(output)) as container:
        assert [c["metadata"]["title"] for c in container.chapters()] == ["two"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_tags_and_chapters(clips: Any, tmp_path: Path, suffix: str) -> None:
    tags = {"title": "A talk", "artist": "Someone", "comment": "kept", "copyright": "theirs"}
    source = talk(
        tmp_path / "in.mkv", clips, tags=tags, chapters=[(0, 400, "one"), (400, 2000, "two"), (2000, 2100, "x")]
    )
    with av.open(str(written(clips, tmp_path, source, suffix))) as container:
        kept = {key.lower(): value for key, value in container.metadata.items()}
        assert tags.items() <= kept.items()
        edges = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]), c["metadata"]["title"])
            for c in container.chapters()
        ]
    assert edges == [(0.0, 0.4, "one"), (0.4, 1.0, "two")]


def test_a_tag_of_a_megabyte_is_left_out(clips: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = talk(tmp_path / "in.mkv", clips, tags={"title": "A talk", "lyrics": "la " * 350_000})
    output = written(clips, tmp_path, source, ".mp4")
    assert "longer tags than are kept" in caplog.text
    assert output.stat().st_size < 100_000
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "A talk"
        assert "lyrics" not in container.metadata


def test_the_language_of_the_new_sound(clips: Any, tmp_path: Path) -> None:
    sound = tmp_path / "fr.mka"
    with av.open(str(sound), "w", format="matroska") as container:
        stream = container.add_stream("aac", rate=44100)
        stream.codec_context.layout = "mono"
        stream.metadata["language"] = "fra"
        for packet in clips._encoded(stream, clips.tone(1.0, channels=1), 44100):
            container.mux(packet)
    for length in (25, 50):  # copied, encoded
        segments, settings = job(clips, tmp_path, [length])
        mux(segments, steady(length), sound, tmp_path / "out.mp4", settings=settings)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.audio[0].metadata["language"] == "fra"
