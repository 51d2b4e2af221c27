"""Encoding segments: what was read comes back, and nothing half written carries the final name."""

from __future__ import annotations

import gc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lipsync_core.errors import OutputError
from lipsync_core.media.color import ColorTags
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.writer import CODECS, EncodeSettings, SegmentWriter, codec_for
from lipsync_core.types import FrameBatch


def batch(*pictures: NDArray[np.uint8]) -> FrameBatch:
    return FrameBatch(0, np.stack(pictures))


def plain(**how: Any) -> EncodeSettings:
    return EncodeSettings(**{"width": 64, "height": 48, "fps": Fraction(25), "codec": "libx264"} | how)


def planes(path: Path, at: int = 0) -> list[NDArray[np.int64]]:
    """Return Y, U and V of one decoded frame."""
    with av.open(str(path)) as container:
        for k, frame in enumerate(container.decode(video=0)):
            if k == at:
                raw = [np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes]
                return [p.astype(np.int64) for p in raw]
    raise IndexError(at)


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_frames_come_back_in_order(clips: Any, tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mkv"
    with SegmentWriter(path, plain(codec=codec)) as writer:
        writer.write(batch(*(clips.numbered(i) for i in range(10))))
        writer.write(batch(*(clips.numbered(i) for i in range(10, 23))))
        assert writer.count == 23
    assert [p.name for p in tmp_path.iterdir()] == ["a.mkv"]
    reader = VideoReader(path)
    assert [clips.number(p.pixels) for p in reader.pictures()] == list(range(23))
    assert (reader.index().times * 25).tolist() == pytest.approx(range(23))


@pytest.mark.parametrize("end", [SegmentWriter.close, SegmentWriter.discard])
def test_an_ended_segment_lets_its_encoder_go(clips: Any, tmp_path: Path, end: Callable[[SegmentWriter], None]) -> None:
    def encoders() -> int:
        # Not `isinstance`: other modules' objects answer `__class__` with warnings.
        return sum(issubclass(type(thing), VideoStream) for thing in gc.get_objects())

    gc.collect()  # what earlier tests left is not to go meanwhile
    before = encoders()
    writer = SegmentWriter(tmp_path / "a.mkv", plain())
    writer.write(batch(clips.numbered(1)))
    assert encoders() == before + 1
    end(writer)
    assert encoders() == before


def test_whole_or_absent(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    writer = SegmentWriter(path, plain())
    writer.write(batch(clips.numbered(1)))
    assert not path.exists()
    writer.close()
    writer.close()
    assert path.exists()
    path.unlink()

    def broken() -> None:
        with SegmentWriter(path, plain()) as writer:
            writer.write(batch(clips.numbered(1)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no frame"):
        SegmentWriter(path, plain()).close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="frame of"), SegmentWriter(path, plain()) as writer:
        writer.write(batch(clips.numbered(1, 32, 48)))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        SegmentWriter(tmp_path / "none" / "a.mkv", plain())


def test_disk_full(clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path / "a.mkv", plain())

    class Full:
        def __init__(self, container: Any) -> None:
            self._container = container

        def mux(self, packet: Any) -> None:
            raise av.error.OSError(28, "No space left on device", "a.mkv")

        def close(self) -> None:
            self._container.close()

    monkeypatch.setattr(writer, "_container", Full(writer._container))
    with pytest.raises(OutputError, match="No space left") as caught:
        writer.write(batch(*(clips.numbered(i) for i in range(100))))
    assert "Free some space" in caught.value.cure
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", sorted(set(CODECS.values())))
def test_same_frames_same_bytes(tmp_path: Path, codec: str) -> None:
    """A job that resumes writes what an uninterrupted one does, whatever the encoder finds in fresh memory."""
    y, x = np.mgrid[:48, :64]
    waves = [((np.sin(x / 7 + i / 3) + np.cos(y / 9 + i / 5) + 2) * 60).astype(np.uint8) for i in range(30)]
    frames = batch(*(np.dstack([wave, wave.T.reshape(wave.shape), 255 - wave]) for wave in waves))
    rng = np.random.default_rng(0)
    written = set()
    for k in range(12):
        litter = [rng.integers(0, 255, rng.integers(10, 200_000), np.uint8) for _ in range(40)]
        del litter[::2]
        with SegmentWriter(tmp_path / f"{k}.mkv", plain(codec=codec)) as writer:
            writer.write(frames)
        written.add((tmp_path / f"{k}.mkv").read_bytes())
    assert len(written) == 1


def test_suffixes() -> None:
    for suffix, codec in CODECS.items():
        assert codec_for(Path(f"x{suffix.upper()}")) == codec
    for name in ("x.avi", "x.gif", "x", "x.mp4.txt"):
        with pytest.raises(OutputError, match=r"\.mp4, \.mov, \.mkv, \.webm"):
            codec_for(Path(name))


def test_crf_has_a_range() -> None:
    for wrong in (-1, 52):
        with pytest.raises(ValueError, match="crf"):
            plain(crf=wrong)


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """Draw soft saturated colours inside the gamut: what 4:2:0 can carry."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    red = 128 + 70 * np.sin(x / width * 5)
    green = 128 + 70 * np.cos(y / height * 4)
    return np.stack([red, green, 255 - (red + green) / 2], -1).astype(np.uint8)


TAGS = [
    (1, 1, 1, 1),
    (1, 5, 5, 6),
    (1, 6, 6, 6),
    (2, 1, 1, 1),
    (2, 6, 1, 13),
    (0, 2, 2, 2),
    (1, 9, 9, 16),
    (1, 9, 9, 18),
]


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize(("suffix", "height"), [(".mp4", 96), (".mp4", 720), (".webm", 96)])
def test_pass_through_keeps_colours(
    clips: Any, tmp_path: Path, tags: tuple[int, ...], suffix: str, height: int
) -> None:
    """YUV read, turned to RGB and written again is the same YUV but for the one encode, its tags (HDR's too) kept."""
    rgb = smooth(128, height)
    context = dict(zip(("color_range", "colorspace", "color_primaries", "color_trc"), tags, strict=True))
    source = clips.video(f"tags{tags}{height}.mkv", "ffv1", n=1, size=(128, height), pictures=[rgb], context=context)
    reader = VideoReader(source)
    assert reader.color == ColorTags(*tags)
    settings = EncodeSettings.for_video(reader, Path(f"x{suffix}"), crf=1)
    assert settings.color == reader.color
    path = tmp_path / "out.mkv"
    with SegmentWriter(path, settings) as writer:
        writer.write(batch(*(p.pixels for p in reader.pictures())))
    if suffix == ".webm" and not tags[0]:
        tags = (1, *tags[1:])  # VP9 always says its range
    assert VideoReader(path).color == ColorTags(*tags)
    # swscale scales chroma to full range half a level low.
    bias = 0.6 if tags[0] == 2 else 0.1
    for before, after in zip(planes(source), planes(path), strict=True):
        assert np.abs(before - after).mean() < 0.7
        assert abs((before - after).mean()) < bias


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48), (17, 19)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_sizes_are_kept(clips: Any, tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    picture = smooth(*size)
    reader = VideoReader(
        clips.video(f"odd{size}.mkv", "ffv1", n=2, size=size, pix_fmt="yuv444p", pictures=[picture] * 2)
    )
    path = tmp_path / "odd.mkv"
    with SegmentWriter(path, EncodeSettings.for_video(reader, Path(f"x{suffix}"), crf=1)) as writer:
        writer.write(batch(*(p.pixels for p in reader.pictures())))
    again = VideoReader(path)
    assert (again.info.width, again.info.height) == size
    assert again.pix_fmt == ("yuv444p" if suffix == ".mp4" else "yuv420p")
    pixels = next(again.pictures()).pixels
    assert np.abs(pixels.astype(int) - picture).mean() < 4
    assert np.abs(pixels.astype(int) - picture)[-1].mean() < 8


def test_rgb_sources_become_ordinary_video(clips: Any, tmp_path: Path) -> None:
    """A PNG, a GIF, a full-range photo: limited-range YUV with its matrix said."""
    for name, codec, pix_fmt in (("a.png", "png", "rgb24"), ("b.jpg", "mjpeg", "yuvj420p"), ("c.gif", "gif", "rgb8")):
        frames = 1 if codec != "gif" else 3
        reader = VideoReader(clips.video(name, codec, n=frames, pix_fmt=pix_fmt, pictures=[smooth(64, 48)] * frames))
        settings = EncodeSettings.for_video(reader, Path("x.mp4"))
        assert (settings.color.range, settings.color.space) == (1, 6)
        path = tmp_path / "still.mkv"
        with SegmentWriter(path, settings) as writer:
            writer.write(batch(*(p.pixels for p in reader.pictures())))
        pixels = next(VideoReader(path).pictures()).pixels
        assert np.abs(pixels.astype(int) - smooth(64, 48)).mean() < (20 if codec == "gif" else 4)


def test_a_still_of_high_dynamic_range_says_so(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = VideoReader(clips.video("pq.png", "png", n=1, pix_fmt="rgb24", pictures=[smooth(64, 48)]))
    monkeypatch.setattr(reader, "color", ColorTags(2, 0, 9, 16))
    assert EncodeSettings.for_video(reader, Path("x.mp4")).color == ColorTags(1, 6, 9, 16)


def test_settings_of_a_turned_video(clips: Any) -> None:
    path = clips.video(
        "turned.mp4", n=2, size=(48, 64), rotation=(90, False, False), context={"sample_aspect_ratio": Fraction(4, 3)}
    )
    settings = EncodeSettings.for_video(VideoReader(path), Path("x.mov"), fps=Fraction(30), crf=23)
    assert (settings.width, settings.height, settings.orientation.degrees) == (64, 48, 90)
    assert (settings.fps, settings.crf, settings.codec, settings.pix_fmt) == (30, 23, "libx264", "yuv420p")
    assert settings.sample_aspect_ratio == Fraction(4, 3)


def test_webm_with_other_than_square_pixels(clips: Any) -> None:
    path = clips.video("anamorphic.mp4", n=2, context={"sample_aspect_ratio": Fraction(4, 3)})
    with pytest.raises(OutputError, match="not square") as caught:
        EncodeSettings.for_video(VideoReader(path), Path("x.webm"))
    assert ".mp4" in caught.value.cure


@pytest.mark.parametrize(
    "fps", [Fraction(123456789, 10**9 + 7), Fraction(10**9 + 7, 123456789), Fraction(1, 5000), Fraction(1000)]
)
def test_any_average_rate(clips: Any, tmp_path: Path, fps: Fraction) -> None:
    """The rate of a variable-rate source is frames over seconds, whatever fraction that is."""
    path = tmp_path / "a.mkv"
    with SegmentWriter(path, plain(fps=fps)) as writer:
        writer.write(batch(*(clips.numbered(i) for i in range(5))))
    assert [clips.number(p.pixels) for p in VideoReader(path).pictures()] == list(range(5))
