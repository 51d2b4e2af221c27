"""Frames side by side: the source, each contender's output and the true mouth, cut alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import build_timeline
from lipsync_core.quality import evaluate, pixels
from lipsync_core.quality.metrics import Box

SHOWN: Final = 6  # frames of a strip
HEIGHT: Final = 150  # px, of a picture in a strip
_QUALITY: Final = 85  # of the JPEG

Look = Callable[[Path], evaluate.Video | None]
Strips = dict[str, list[bytes]]
"""What each row is called, and its pictures as JPEG."""


def of_jobs(outputs: Mapping[str, Path], source: Path, truth: Path | None, look: Look) -> Strips:
    """Return a strip of the source, of each output and of the truth, at the same moments.

    look: finds faces. The source's face says what is cut out of its own picture and of the outputs made from it.
    """
    base = look(source)
    if base is None:
        return {}
    shown = {name: VideoReader(path) for name, path in outputs.items()}
    indices = {name: reader.index() for name, reader in shown.items()}
    count = min(len(index) for index in indices.values())
    moments = np.unique(np.linspace(0, count - 1, SHOWN).round().astype(np.int64))
    info = base.reader.info
    duration = max(float(index.duration) for index in indices.values())
    timeline = build_timeline(base.analysis.index, info.fps, audio_duration=duration, still=base.reader.is_still)
    order = timeline.source_frames[np.minimum(moments, len(timeline) - 1)]
    boxes = [_box(base, int(frame)) for frame in order]
    strips = {"source": _strip(base.reader.in_order(base.analysis.index, order), boxes)}
    for name, reader in shown.items():
        strips[name] = _strip(reader.in_order(indices[name], moments), boxes)
    said = None if truth is None else look(truth)
    if said is not None:
        there = np.minimum(moments, len(said.analysis.index) - 1)
        cuts = [_box(said, int(frame)) for frame in there]
        strips["truth"] = _strip(said.reader.in_order(said.analysis.index, there), cuts)
    return strips


def of_stage(outputs: Mapping[str, Path]) -> Strips:
    """Return a strip of each contender's kept pictures, or masks; nothing where a stage makes neither."""
    strips: Strips = {}
    for name, path in outputs.items():
        with np.load(path, allow_pickle=False) as store:
            if "pictures" in store:
                pictures = store["pictures"]
            elif "box" in store:  # masks
                pictures = np.repeat((255 * store["values"]).astype(np.uint8)[..., None], 3, axis=3)
            else:
                continue
        rows = np.unique(np.linspace(0, len(pictures) - 1, SHOWN).round().astype(int))
        strips[name] = [_jpeg(pictures[row]) for row in rows]
    return strips


def _box(video: evaluate.Video, frame: int) -> Box:
    """Return where the face is, the whole frame where there is none."""
    info, points = video.reader.info, video.landmarks[frame]
    if not np.isfinite(points).all():
        return 0, 0, info.width, info.height
    return pixels.face_box(points, info.width, info.height)


def _strip(pictures: evaluate.Pictures, boxes: list[Box]) -> list[bytes]:
    cut = []
    for picture, (x, y, width, height) in zip(pictures, boxes, strict=True):
        cut.append(_jpeg(picture[y : y + height, x : x + width]))
    return cut


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    height, width = picture.shape[:2]
    size = (max(1, round(width * HEIGHT / height)), HEIGHT)
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if height > HEIGHT else cv2.INTER_CUBIC)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()
