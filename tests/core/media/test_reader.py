"""Reading: what a file is, colours, orientation, times, damage, and every way a path can be no video."""

from __future__ import annotations

import logging
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from lipsync_core.media.index import FrameIndex
from lipsync_core.media.orientation import Orientation
from lipsync_core.media.probe import DamageLog, decode_video, find_video
from lipsync_core.media.reader import VideoReader


def numbers(clips: Any, reader: VideoReader) -> list[int]:
    return [clips.number(picture.pixels) for picture in reader.pictures()]


def test_facts_of_a_video(clips: Any) -> None:
    path = clips.video("facts.mp4", n=10, rate=30, sound=clips.tone(0.3))
    reader = VideoReader(str(path))
    assert (reader.path, reader.info.width, reader.info.height) == (path, 64, 48)
    assert (reader.info.fps, reader.info.frame_count, reader.info.has_audio) == (30, 10, True)
    assert (reader.rotation, reader.is_still, reader.codec_name, reader.pix_fmt) == (0, False, "h264", "yuv420p")
    first = next(reader.pictures())
    assert first.pixels.shape == (48, 64, 3)
    assert first.pixels.dtype == np.uint8
    assert first.pixels.flags.c_contiguous
    assert first.key
    assert not VideoReader(clips.video("mute.mp4", n=2)).info.has_audio


def test_reader_can_be_used_again(clips: Any) -> None:
    reader = VideoReader(clips.video("again.mp4", n=6))
    half = reader.pictures()
    next(half)
    assert numbers(clips, reader) == numbers(clips, reader) == list(range(6))
    assert clips.number(next(half).pixels) == 1


@pytest.mark.parametrize("size", [(63, 47), (65, 48), (64, 49), (17, 19)])
@pytest.mark.parametrize("codec", ["ffv1", "libvpx-vp9"])
def test_odd_sizes(clips: Any, size: tuple[int, int], codec: str) -> None:
    """Every pixel of an odd picture is there, the last row and column too (rgb planes are padded inside FFmpeg)."""
    reader = VideoReader(clips.video(f"odd{size}{codec}.mkv", codec, n=3, size=size))
    assert (reader.info.width, reader.info.height) == size
    for picture in reader.pictures():
        assert picture.pixels.shape == (size[1], size[0], 3)
        want = clips.numbered(picture.index, *size).astype(int)
        assert np.abs(picture.pixels[-1, -1] - want[-1, -1]).max() < 30
        assert np.abs(picture.pixels - want).mean() < 12


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    "turn", [(90, False, False), (180, False, False), (270, False, False), (0, True, False), (90, True, False)]
)
def test_rotation(clips: Any, turn: tuple[float, bool, bool], suffix: str) -> None:
    """Frames come out as they are shown: the stored picture is the upright one turned back."""
    degrees, mirrored, _ = turn
    upright = [clips.numbered(n) for n in range(3)]

    def stored(pixels: Any) -> Any:
        if mirrored:  # FFmpeg's matrix for (90, hflip) mirrors what the turn has made
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, -int(degrees) // 90))

    pictures = [stored(p) for p in upright]
    size = (pictures[0].shape[1], pictures[0].shape[0])
    path = clips.video(f"turned{turn}.{suffix}", n=3, size=size, pictures=pictures, rotation=turn)
    reader = VideoReader(path)
    assert (reader.info.width, reader.info.height) == (64, 48)
    assert numbers(clips, reader) == [0, 1, 2]
    if not mirrored:
        assert reader.rotation == degrees


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (-1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, 1, 0),
        (0, 1, -1, 0),
        (0, -1, -1, 0),
    ],
)
def test_stored_is_the_inverse_of_upright(matrix: tuple[int, int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    turn = Orientation(*matrix)
    shown = turn.upright(pixels)
    assert (shown.shape[1], shown.shape[0]) == turn.turned(7, 5)
    assert np.array_equal(turn.stored(shown), pixels)
    # display.h: what is stored at (p, q) is shown at (a·p + c·q, b·p + d·q), counted from the far edge where negative.
    a, b, c, d = matrix
    for y in range(5):
        for x in range(7):
            right, down = a * x + c * y, b * x + d * y
            if a + c < 0:
                right += shown.shape[1] - 1
            if b + d < 0:
                down += shown.shape[0] - 1
            assert np.array_equal(shown[down, right], pixels[y, x])


MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize(
    ("space", "size"), [(1, (64, 48)), (6, (64, 48)), (5, (64, 720)), (9, (64, 48)), (2, (64, 48)), (2, (64, 720))]
)
@pytest.mark.parametrize("full", [False, True])
def test_colour_matrix_and_range(clips: Any, space: int, size: tuple[int, int], full: bool) -> None:
    """Known YUV comes out as its matrix and range say; untagged is BT.601 below 720 lines, BT.709 from there."""
    yuv = np.array([[120, 90, 160], [60, 150, 110], [200, 120, 135]])
    width, height = size
    frame = av.VideoFrame(width, height, "yuv444p")
    for plane, values in zip(frame.planes, yuv.T, strict=True):
        row = np.zeros(plane.line_size, np.uint8)
        row[:width] = np.repeat(values, -(-width // 3))[:width]
        plane.update(np.tile(row, (height, 1)).tobytes())
    path = clips.folder / f"colour{space}{size}{full}.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        stream.codec_context.colorspace = space
        stream.codec_context.color_range = 2 if full else 1
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame) + stream.encode(None))
    reader = VideoReader(path)
    assert (reader.color.space, reader.color.range) == (space, 2 if full else 1)
    pixels = next(reader.pictures()).pixels
    kr, kb = MATRICES[space if space != 2 else (1 if height >= 720 else 6)]
    y, u, v = yuv.T.astype(float)
    y, u, v = (y, u - 128, v - 128) if full else ((y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224)
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    want = np.clip(np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], -1), 0, 255)
    centre = [width // 6, width // 2, width * 5 // 6]
    assert np.abs(pixels[height // 2, centre] - want).max() <= 1.01


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("p.png", "png", "rgb24"),
        ("p.jpg", "mjpeg", "yuvj420p"),
        ("p.bmp", "bmp", "bgr24"),
        ("p.webp", "libwebp", "yuv420p"),
        ("one.gif", "gif", "rgb8"),
    ],
)
def test_still(clips: Any, name: str, codec: str, pix_fmt: str) -> None:
    reader = VideoReader(clips.video(name, codec, n=1, pix_fmt=pix_fmt, size=(64, 48)))
    assert reader.is_still
    assert (reader.info.fps, reader.info.frame_count, reader.info.has_audio) == (25, 1, False)
    assert numbers(clips, reader) == [0]
    index = reader.index()
    assert len(index) == 1
    assert [clips.number(p) for p in reader.in_order(index, np.zeros(3, np.int64))] == [0, 0, 0]


def test_still_with_alpha_and_16_bit(clips: Any) -> None:
    path = clips.folder / "alpha.png"
    cv2.imwrite(str(path), np.dstack([clips.numbered(5)[..., ::-1], np.full((48, 64), 255, np.uint8)]))
    assert numbers(clips, VideoReader(path)) == [5]
    path = clips.folder / "sixteen.png"
    cv2.imwrite(str(path), clips.numbered(7)[..., ::-1].astype(np.uint16) * 257)
    assert numbers(clips, VideoReader(path)) == [7]


AS_STORED_FOR: dict[int, Any] = {  # what a camera that was held so writes
    1: lambda shown: shown,
    2: np.fliplr,
    3: lambda shown: np.rot90(shown, 2),
    4: np.flipud,
    5: lambda shown: shown.swapaxes(0, 1),
    6: np.rot90,
    7: lambda shown: np.rot90(shown, 2).swapaxes(0, 1),
    8: lambda shown: np.rot90(shown, -1),
}


@pytest.mark.parametrize("orientation", AS_STORED_FOR)
@pytest.mark.parametrize("order", ["MM", "II"])
def test_exif_orientation_of_a_photo(clips: Any, orientation: int, order: str) -> None:
    """A phone's portrait photo is stored lying: orientation 6 says turn it clockwise. Selfies may be mirrored."""
    stored = np.ascontiguousarray(AS_STORED_FOR[orientation](clips.numbered(9)))
    data = cv2.imencode(".jpg", stored[..., ::-1])[1].tobytes()
    sign = {"MM": ">", "II": "<"}[order]
    directory = struct.pack(f"{sign}HHHIHHI", 1, 274, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + order.encode() + struct.pack(f"{sign}HI", 42, 8) + directory
    path = clips.folder / f"photo{orientation}{order}.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    reader = VideoReader(path)
    assert numbers(clips, reader) == [9]
    assert (reader.info.width, reader.info.height) == (64, 48)


def test_animated_gif_is_a_video(clips: Any) -> None:
    reader = VideoReader(clips.video("moving.gif", "gif", n=8, pix_fmt="rgb8", rate=10))
    assert not reader.is_still
    assert numbers(clips, reader) == list(range(8))


def test_batches_and_their_index(clips: Any) -> None:
    path = clips.video("batches.mp4", n=20, options={"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=2"})
    reader = VideoReader(path)
    batches = reader.batches(8)
    with pytest.raises(RuntimeError):
        batches.index()
    seen = list(batches)
    assert [(frames.start, len(frames.pixels)) for frames, _, _ in seen] == [(0, 8), (8, 8), (16, 4)]
    assert [clips.number(p) for frames, _, _ in seen for p in frames.pixels] == list(range(20))
    index = batches.index()
    assert index.pts.tolist() == np.concatenate([pts for _, pts, _ in seen]).tolist()
    assert np.flatnonzero(index.key).tolist() == [0, 8, 16]
    alone = reader.index()
    assert all(
        np.array_equal(a, b) for a, b in zip(index.to_arrays().values(), alone.to_arrays().values(), strict=True)
    )
    assert index.times[:3].tolist() == [0.0, 0.04, 0.08]
    assert index.duration == Fraction(20, 25)
    with pytest.raises(ValueError, match="at least one"):
        reader.batches(0)


def test_index_as_arrays(tmp_path: Path) -> None:
    index = FrameIndex(np.array([5, 9, 20]), np.array([True, False, True]), Fraction(1001, 30000), 31, seekable=False)
    np.savez(tmp_path / "index.npz", **index.to_arrays())
    with np.load(tmp_path / "index.npz") as stored:
        again = FrameIndex.from_arrays(stored)
    assert (again.time_base, again.end_pts, again.seekable) == (Fraction(1001, 30000), 31, False)
    assert again.pts.tolist() == [5, 9, 20]
    assert again.key.tolist() == [True, False, True]
    with pytest.raises(KeyError):
        FrameIndex.from_arrays({"pts": index.pts})
    with pytest.raises(ValueError, match="FrameIndex"):
        FrameIndex(np.zeros(0, np.int64), np.zeros(0, np.bool_), Fraction(1), 0)


def test_variable_rate_and_non_zero_start(clips: Any) -> None:
    pts = [1400, 1440, 1520, 1530, 1700, 1701]
    reader = VideoReader(clips.video("vfr.mkv", n=6, pts=pts, time_base=Fraction(1, 1000), options={"bf": "0"}))
    index = reader.index()
    assert (index.pts * index.time_base * 1000).tolist() == pts
    assert index.times[0] == 0
    assert numbers(clips, reader) == list(range(6))


def test_missing_times_are_filled(clips: Any) -> None:
    """A raw stream has none."""
    reader = VideoReader(clips.video("raw.h264", n=12, rate=25))
    index = reader.index()
    assert not index.seekable
    steps = np.diff(index.pts) * float(index.time_base)
    assert np.allclose(steps, 0.04)
    assert numbers(clips, reader) == list(range(12))


@pytest.mark.parametrize(
    ("stamps", "repaired"),
    [
        ([0, 40, 40, 80], [0, 40, 41, 80]),
        ([0, 40, 30, 80], [0, 40, 41, 80]),
        ([0, 40, None, 120], [0, 40, 80, 120]),
        ([None, None, 80], [0, 40, 80]),
        ([5000, 5040, 0, 40, 80], [5000, 5040, 5080, 5120, 5160]),
        ([0, 40, 80], [0, 40, 80]),
    ],
)
def test_repaired_times(clips: Any, stamps: list[int | None], repaired: list[int]) -> None:
    clock = VideoReader(clips.video("clock.mkv", n=2)).clock()
    frames = []
    for stamp in stamps:
        frame = av.VideoFrame(16, 16)
        frame.pts = stamp
        frames.append(frame)
    assert [clock.stamp(frame) for frame in frames] == repaired
    assert clock.repaired == (stamps != repaired)


def test_files_put_end_to_end(clips: Any) -> None:
    """`cat a.ts b.ts`: the clock starts anew in the middle; times go on rising and every frame is kept."""
    a = clips.video("one.ts", n=10, options={"bf": "0"}).read_bytes()
    path = clips.folder / "twice.ts"
    path.write_bytes(a + a)
    reader = VideoReader(path)
    index = reader.index()
    found = numbers(clips, reader)
    assert found == list(range(10)) * 2
    assert (np.diff(index.pts) > 0).all()
    assert [clips.number(p) for p in reader.in_order(index, np.array([15, 3, 12]))] == [5, 3, 2]


def test_damage_in_the_middle(clips: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Frames around the damage are kept with their own times, and there is one warning however often it is read."""
    path = clips.video("damaged.mkv", "mjpeg", n=20, pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for part in range(4, 10):
        at = len(data) * part // 12
        data[at : at + 40] = rng.bytes(40)
    path.write_bytes(data)
    reader = VideoReader(path)
    with caplog.at_level(logging.WARNING):
        index = reader.index()
        found = numbers(clips, reader)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "damaged.mkv is damaged" in caplog.text
    slots = np.rint(index.times * 25).astype(int)
    assert np.allclose(index.times * 25, slots)
    assert 14 <= len(slots) < 20
    assert (found == slots).sum() >= 13
    assert [clips.number(p) for p in reader.in_order(index, np.array([len(index) - 1, 2]))] == [19, 2]


def test_truncated(clips: Any) -> None:
    path = clips.video("cut.mkv", n=40, options={"bf": "0"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = numbers(clips, VideoReader(path))
    assert found == list(range(len(found)))
    assert 5 < len(found) < 40


def test_reading_that_fails_midway_keeps_what_was_read(clips: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A disk or network error: the frames the decoder still holds come out, and there is a warning."""
    path = clips.video("failing.mkv", n=20, options={"bf": "2"})

    class Failing:
        def __init__(self, container: Any) -> None:
            self._container = container

        def demux(self, stream: Any) -> Any:
            for k, packet in enumerate(self._container.demux(stream)):
                if k == 9:
                    raise av.error.OSError(5, "Input/output error", str(path))
                yield packet

    with av.open(str(path)) as container:
        stream = find_video(container)
        frames = list(decode_video(Failing(container), stream, DamageLog(path)))
    assert len(frames) == 9
    assert "Input/output error" in caplog.text


def test_lost_packets_leave_gaps_in_time(clips: Any) -> None:
    path = clips.video("lost.mkv", "mjpeg", n=12, pix_fmt="yuvj420p", drop=[4, 5])
    reader = VideoReader(path)
    assert numbers(clips, reader) == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert np.allclose(reader.index().times * 25, [0, 1, 2, 3, 6, 7, 8, 9, 10, 11])


@pytest.mark.parametrize(
    "name", ["a b.mp4", "-rf.mp4", "x:y.mp4", "100%d.png", "quote'\".mp4", "new\nline.mp4", "tête😀.mp4"]
)
def test_awkward_names(clips: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = clips.video(
        "plain" + Path(name).suffix,
        "png" if name.endswith("png") else "libx264",
        n=1,
        pix_fmt="rgb24" if name.endswith("png") else "yuv420p",
    )
    (clips.folder / name).write_bytes(plain.read_bytes())
    # What FFmpeg would read for "100%d.png", taking it for the pattern of a sequence.
    clips.video("1000.png", "png", n=1, pix_fmt="rgb24", pictures=[clips.numbered(77)])
    monkeypatch.chdir(clips.folder)
    assert numbers(clips, VideoReader(name)) == [0]
    assert numbers(clips, VideoReader(clips.folder / name)) == [0]
