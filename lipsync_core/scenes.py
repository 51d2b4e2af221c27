"""Cutting a stream of frames at scene changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np
from numpy.typing import NDArray
from scenedetect import ContentDetector, FrameTimecode

from lipsync_core.types import FrameBatch

# PySceneDetect's own default: mean change of hue, saturation and brightness of a pixel, in grey levels.
THRESHOLD = 27.0
# The detector compares means, so small frames give the same answer in a fraction of the time.
_WIDTH = 160


def split_scenes(batches: Iterable[FrameBatch]) -> Iterator[Iterator[FrameBatch]]:
    """Yield one stream of frames for each scene; each must be used up before the next is asked for."""
    for _, pieces in groupby(_labelled(batches), key=itemgetter(0)):
        yield (batch for _, batch in pieces)


def _labelled(batches: Iterable[FrameBatch]) -> Iterator[tuple[int, FrameBatch]]:
    """Yield (scene number, frames), batches cut where a scene begins."""
    detector = ContentDetector(threshold=THRESHOLD, min_scene_len=0)
    scene = 0
    for batch in batches:
        first = 0
        for row, frame in enumerate(batch.pixels):
            if detector.process_frame(FrameTimecode(batch.start + row, fps=25.0), _thumbnail(frame)):
                if row > first:
                    yield scene, FrameBatch(batch.start + first, batch.pixels[first:row])
                scene += 1
                first = row
        yield scene, FrameBatch(batch.start + first, batch.pixels[first:])


def _thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    while min(width // size[0], height // size[1]) >= 2:
        # Exact halves have a fast way: two of them and a last step take a third of the time of one step at 1080x1920.
        width, height = width // 2, height // 2
        frame = _averaged(frame[: 2 * height, : 2 * width], (width, height))
    small = _averaged(frame, size)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), dtype=np.uint8)


def _averaged(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
