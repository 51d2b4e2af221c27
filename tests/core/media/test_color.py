"""Colour conversion: the stages' pixels are swscale's own; the encoder's do not depend on what was in memory before."""

from __future__ import annotations

import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lipsync_core.media.color import _FLAGS, FULL, LIMITED, UNTAGGED, ColorTags, RgbConverter, YuvConverter
from lipsync_core.media.orientation import AS_STORED, Orientation

TAGS = (UNTAGGED, ColorTags(LIMITED, 1), ColorTags(FULL, 5), ColorTags(LIMITED, 9))


def noise(width: int, height: int, pix_fmt: str) -> VideoFrame:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return VideoReformatter().reformat(VideoFrame.from_ndarray(pixels, "rgb24"), format=pix_fmt)


def packed(frame: VideoFrame, tags: ColorTags) -> NDArray[np.uint8]:
    """Return the picture as swscale makes packed RGB in one go."""
    size, format_ = (frame.width, frame.height), "rgb24"
    matrix = tags.sws_matrix(frame.height)
    rgb = VideoReformatter().reformat(
        frame, *size, format_, src_colorspace=matrix, src_color_range=tags.sws_range, interpolation=_FLAGS, threads=1
    )
    return np.asarray(rgb.to_ndarray(), np.uint8)


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("size", [(64, 48), (50, 34), (1080, 16), (2, 2)])
@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le", "gray"]
)
def test_rgb_is_what_swscale_makes_in_one_go(pix_fmt: str, size: tuple[int, int], tags: ColorTags) -> None:
    frame = noise(*size, pix_fmt)
    assert (RgbConverter(tags, AS_STORED, *size).rgb(frame) == packed(frame, tags)).all()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_where_chroma_has_no_whole_number_of_pixels_rgb_is_off_by_one_level_at_most(pix_fmt: str) -> None:
    frame = noise(33, 27, pix_fmt)
    apart = RgbConverter(UNTAGGED, AS_STORED, 33, 27).rgb(frame).astype(int) - packed(frame, UNTAGGED)
    assert np.abs(apart).max() <= 1
    assert (apart != 0).mean() < 0.01


@pytest.mark.parametrize("turn", [Orientation(0, -1, 1, 0), Orientation(-1, 0, 0, -1), Orientation(-1, 0, 0, 1)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24"])
def test_a_turned_picture_is_the_same_one_turned(pix_fmt: str, turn: Orientation) -> None:
    frame = noise(48, 32, pix_fmt)
    stored = RgbConverter(UNTAGGED, AS_STORED, 48, 32).rgb(frame)
    assert (RgbConverter(UNTAGGED, turn, 48, 32).rgb(frame) == turn.upright(stored)).all()


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
