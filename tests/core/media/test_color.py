"""Colour conversion: the stages' pixels are swscale's own; the encoder's do not depend on what was in memory before."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lipsync_core.media.color import _BANDED, _FLAGS, FULL, LIMITED, UNTAGGED, ColorTags, RgbConverter, YuvConverter
from lipsync_core.media.orientation import AS_STORED, Orientation

TAGS = (UNTAGGED, ColorTags(LIMITED, 1), ColorTags(FULL, 5), ColorTags(LIMITED, 9))


def noise(width: int, height: int, pix_fmt: str, seed: int = 0) -> VideoFrame:
    pixels = np.random.default_rng((width, seed)).integers(0, 256, (height, width, 3), np.uint8)
    return VideoReformatter().reformat(VideoFrame.from_ndarray(pixels, "rgb24"), format=pix_fmt)


def packed(frame: VideoFrame, tags: ColorTags) -> NDArray[np.uint8]:
    """Return the picture as swscale makes packed RGB in one go."""
    size, format_ = (frame.width, frame.height), "rgb24"
    matrix = tags.sws_matrix(frame.height)
    rgb = VideoReformatter().reformat(
        frame, *size, format_, src_colorspace=matrix, src_color_range=tags.sws_range, interpolation=_FLAGS, threads=1
    )
    return np.asarray(rgb.to_ndarray(), np.uint8)


def test_only_rgb_gets_another_matrix_when_it_is_written() -> None:
    for space in (2, 5, 8, 9, 10, 14):  # YCgCo, BT.2020 with constant luminance and ICtCp among them
        assert ColorTags(LIMITED, space, 9, 16).for_encoding(288) == ColorTags(LIMITED, space, 9, 16)
    assert ColorTags(FULL, 0, 9, 16).for_encoding(288) == ColorTags(LIMITED, 6, 9, 16)
    assert ColorTags(FULL, 0).for_encoding(1080).space == 1


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("size", [(64, 48), (50, 34), (1080, 16), (2, 2)])
@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le", "gray"]
)
def test_rgb_is_what_swscale_makes_in_one_go(pix_fmt: str, size: tuple[int, int], tags: ColorTags) -> None:
    frame = noise(*size, pix_fmt)
    assert (RgbConverter(tags, AS_STORED, *size).rgb(frame) == packed(frame, tags)).all()


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("size", [(1080, 1920), (50, 8700), (3840, 96)])
@pytest.mark.parametrize("pix_fmt", sorted(_BANDED))
def test_bands_show_what_the_whole_picture_does(pix_fmt: str, size: tuple[int, int], tags: ColorTags) -> None:
    converter = RgbConverter(tags, AS_STORED, *size)
    for frame in (noise(*size, pix_fmt), noise(*size, pix_fmt, seed=1)):  # the second in the first one's band
        assert converter._has_bands(frame)
        assert (converter.rgb(frame) == packed(frame, tags)).all()


def test_formats_may_change_from_picture_to_picture() -> None:
    converter = RgbConverter(UNTAGGED, AS_STORED, 1080, 400)
    for pix_fmt in ("yuv420p", "yuv444p", "yuv410p", "yuv420p10le", "yuv420p"):
        frame = noise(1080, 400, pix_fmt)
        assert (converter.rgb(frame) == packed(frame, UNTAGGED)).all()


@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_bands_keep_where_chroma_lies(location: str, tmp_path: Path) -> None:
    path = tmp_path / "sited.mkv"
    with av.open(str(path), "w") as container:
        parameters = f"chromaloc={['left', 'center', 'topleft'].index(location)}"
        stream = container.add_stream("libx264", rate=25, options={"x264-params": parameters, "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 1080, 400, "yuv420p"
        for packet in (*stream.encode(noise(1080, 400, "yuv420p")), *stream.encode()):
            container.mux(packet)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (RgbConverter(UNTAGGED, AS_STORED, 1080, 400).rgb(frame) == packed(frame, UNTAGGED)).all()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_where_chroma_has_no_whole_number_of_pixels_rgb_is_off_by_one_level_at_most(pix_fmt: str) -> None:
    frame = noise(33, 27, pix_fmt)
    apart = RgbConverter(UNTAGGED, AS_STORED, 33, 27).rgb(frame).astype(int) - packed(frame, UNTAGGED)
    assert np.abs(apart).max() <= 1
    assert (apart != 0).mean() < 0.01


@pytest.mark.parametrize("turn", [Orientation(0, -1, 1, 0), Orientation(-1, 0, 0, -1), Orientation(-1, 0, 0, 1)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24"])
@pytest.mark.parametrize("size", [(48, 32), (1080, 400)])
def test_a_turned_picture_is_the_same_one_turned(size: tuple[int, int], pix_fmt: str, turn: Orientation) -> None:
    frame = noise(*size, pix_fmt)
    stored = RgbConverter(UNTAGGED, AS_STORED, *size).rgb(frame)
    assert (RgbConverter(UNTAGGED, turn, *size).rgb(frame) == turn.upright(stored)).all()


def test_a_picture_goes_into_any_array_of_its_size() -> None:
    frame = noise(48, 32, "yuv420p")
    converter = RgbConverter(UNTAGGED, AS_STORED, 48, 32)
    batch = np.zeros((2, 32, 48, 3), np.uint8)
    wide = np.zeros((32, 60, 3), np.uint8)
    converter.into(frame, batch[1])
    converter.into(frame, wide[:, 12:])
    assert (batch[1] == converter.rgb(frame)).all()
    assert not batch[0].any()
    assert (wide[:, 12:] == batch[1]).all()
    assert not wide[:, :12].any()


@pytest.mark.parametrize("width", [1080, 360, 50, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_the_unused_end_of_each_row_repeats_its_last_column(width: int, pix_fmt: str) -> None:
    pixels = np.random.default_rng(width).integers(0, 255, (16, width, 3), np.uint8)
    frame = YuvConverter(UNTAGGED, AS_STORED, pix_fmt).frame(pixels)
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        assert plane.line_size >= plane.width
        assert (rows[:, plane.width :] == rows[:, plane.width - 1 : plane.width]).all()
