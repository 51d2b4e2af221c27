"""What the encoder is given does not depend on what was in memory before."""

from __future__ import annotations

import numpy as np
import pytest

from lipsync_core.media.color import UNTAGGED, YuvConverter
from lipsync_core.media.orientation import AS_STORED


@pytest.mark.parametrize("width", [1080, 360, 50, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_the_unused_end_of_each_row_repeats_its_last_column(width: int, pix_fmt: str) -> None:
    pixels = np.random.default_rng(width).integers(0, 255, (16, width, 3), np.uint8)
    frame = YuvConverter(UNTAGGED, AS_STORED, pix_fmt).frame(pixels)
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        assert plane.line_size >= plane.width
        assert (rows[:, plane.width :] == rows[:, plane.width - 1 : plane.width]).all()
