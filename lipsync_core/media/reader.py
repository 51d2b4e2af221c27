"""Reading a video or a still image: upright RGB frames with their times, forward or in any order."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lipsync_core.errors import InputError
from lipsync_core.media.color import ColorTags, Matrix, RgbConverter
from lipsync_core.media.index import Clock, FrameIndex
from lipsync_core.media.order import frames_in_order
from lipsync_core.media.orientation import Orientation
from lipsync_core.media.probe import DamageLog, decode_video, find_audio, find_video, open_media
from lipsync_core.types import FrameBatch, VideoInfo

log = logging.getLogger(__name__)

STILL_FPS: Final = Fraction(25)
"""Frame rate of a video made from one picture, and where a file says none: the rate LatentSync works at."""

_PLAUSIBLE_FPS: Final = (Fraction(1, 10), Fraction(1000))


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame: its index and pts in the source, whether a decoder can start at it, and uint8 RGB [H, W, 3]."""

    index: int
    pts: int
    key: bool
    pixels: NDArray[np.uint8]


class VideoReader:
    """A video file or still image as it is shown. Holds no open file; each iteration opens it anew.

    path: the file. info: size after rotation, rate, whether it has sound. rotation: counterclockwise degrees the
    stored picture is turned by to be shown. orientation: the same with mirroring. is_still: one picture without time.
    color: the tags of the stored picture. sample_aspect_ratio: width : height of a stored pixel. time_base: unit of
    pts, s. codec_name, pix_fmt: FFmpeg's names.

    Raises `InputError` if the file is missing, a folder, empty, not media, has no video, or no frame of it decodes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage = DamageLog(self.path)
        with self.open() as (container, stream):
            frame = next(decode_video(container, stream, self.damage), None)
            if frame is None:
                raise _undecodable(self.path, stream.codec_context.name)
            if frame.interlaced_frame:
                log.warning("%s is interlaced; its half-pictures are dubbed as they are, combs included", self.path)
            self.is_still = _is_still(container, stream, self.damage)
            self.orientation = Orientation.of(frame, self.path)
            self.rotation = self.orientation.degrees
            is_rgb = frame.format.is_rgb or frame.format.has_palette  # GIF and PNG leave the matrix untagged
            space = Matrix.RGB if is_rgb else frame.colorspace
            self.color = ColorTags(frame.color_range, int(space), frame.color_primaries, frame.color_trc)
            self.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(1)
            self.time_base = stream.time_base or Fraction(1, 1000)
            self.codec_name = stream.codec_context.codec.canonical_name
            self.pix_fmt = frame.format.name
            # AVI stores no presentation times; FFmpeg cannot work them out for these codecs and numbers the packets.
            self._by_dts = container.format.name == "avi" and self.codec_name in {"h264", "hevc"}
            self._stored_size = (frame.width, frame.height)
            width, height = self.orientation.turned(*self._stored_size)
            fps = STILL_FPS if self.is_still else _rate(stream)
            has_audio = find_audio(container) is not None
            self.info = VideoInfo(width, height, fps, 1 if self.is_still else stream.frames or None, has_audio)

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Open the file and its video stream for one decode; raises `InputError` as the constructor does."""
        with open_media(self.path) as container:
            stream = find_video(container)
            if stream is None:
                raise InputError(f"{str(self.path)!r} has no video that can be decoded.", "Give a video or an image.")
            yield container, stream

    def converter(self) -> RgbConverter:
        """Return a converter of this file's frames to upright RGB, for one thread."""
        return RgbConverter(self.color, self.orientation, *self._stored_size)

    def frames(self, clock: Clock) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from the start; yields each frame, not converted, with its repaired pts."""
        with self.open() as (container, stream):
            for frame in decode_video(container, stream, self.damage):
                yield clock.stamp(frame), frame
                if self.is_still:
                    return

    def clock(self) -> Clock:
        """Return a clock for one plain decode of this file."""
        return Clock(round(1 / (self.info.fps * self.time_base)), by_dts=self._by_dts)

    def pictures(self, first: int = 0, index: FrameIndex | None = None) -> Iterator[Picture]:
        """Yield the frames from number `first` on.

        With the `index` of an earlier pass a late `first` is reached by seeking; without it, by decoding.
        """
        if index is not None:
            order = np.arange(first, len(index))
            for i, pixels in zip(order.tolist(), self.in_order(index, order), strict=True):
                yield Picture(i, int(index.pts[i]), bool(index.key[i]), pixels)
            return
        converter = self.converter()
        for i, (pts, frame) in enumerate(self.frames(self.clock())):
            if i >= first:
                yield Picture(i, pts, frame.key_frame, converter.rgb(frame))

    def batches(self, size: int) -> IndexedBatches:
        """Return an iterator over (FrameBatch of up to `size` frames, pts int64 [n], key bool [n]) for the first pass.

        Once it is exhausted its `index()` is the file's `FrameIndex`.
        """
        return IndexedBatches(self, size)

    def index(self) -> FrameIndex:
        """Decode the whole file without looking at its pixels; `batches(...).index()` costs nothing extra."""
        clock = self.clock()
        stamps = [(pts, frame.key_frame) for pts, frame in self.frames(clock)]
        pts = np.array([p for p, _ in stamps], np.int64)
        key = np.array([k for _, k in stamps], np.bool_)
        return FrameIndex(pts, key, self.time_base, clock.end(pts), not clock.repaired)

    def in_order(self, index: FrameIndex, order: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Yield frame `order[0]`, `order[1]`, ... as uint8 RGB [H, W, 3], read-only; a repeat is the same array.

        `order` is any sequence of source frame numbers: forward, held, backward, jumping. Frames equal those of a
        plain decode: places reached by seeking are checked by their pts, and where the file cannot seek exactly it is
        decoded from an earlier point or its beginning. Memory is bounded (`order.HOLD_BYTES`).

        Raises `IndexError` for a number outside the index, `InputError` where the file no longer holds these frames.
        """
        _check(order, index)
        converter = self.converter()
        last: VideoFrame | None = None
        pixels = np.empty((0, 0, 3), np.uint8)
        for frame in frames_in_order(self, index, order):
            if frame is not last:
                last, pixels = frame, converter.rgb(frame)
                pixels.flags.writeable = False
            yield pixels

    def in_runs(
        self, index: FrameIndex, order: NDArray[np.int64], lengths: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the same frames as `in_order`, those of a run together in one new array uint8 [length, H, W, 3].

        lengths: of the runs, which add up to `order`. A run's array is yielded once for each of its frames, as soon as
        that one is in it, so that frames can wait one by one in a queue; nothing else refers to it after the last.
        """
        _check(order, index)
        if sum(lengths) != len(order):
            raise ValueError(f"runs of {sum(lengths)} frames for {len(order)}")
        converter = self.converter()
        frames = frames_in_order(self, index, order)
        for length in lengths:
            pixels = np.empty((length, self.info.height, self.info.width, 3), np.uint8)
            last: VideoFrame | None = None  # of this run: whoever took the one before may have written to it
            for row in range(length):
                frame = next(frames)
                if frame is last:
                    pixels[row] = pixels[row - 1]
                else:
                    converter.into(frame, pixels[row])
                    last = frame
                yield pixels
            del pixels  # or it would be held while the next one is begun


class IndexedBatches(Iterator[tuple[FrameBatch, NDArray[np.int64], NDArray[np.bool_]]]):
    """The first pass over a file: batches of frames, and at the end the index of all of them."""

    def __init__(self, reader: VideoReader, size: int) -> None:
        if size < 1:
            raise ValueError(f"a batch holds at least one frame, got {size}")
        self._reader = reader
        self._size = size
        self._clock = reader.clock()
        self._pts: list[NDArray[np.int64]] = []
        self._key: list[NDArray[np.bool_]] = []
        self._exhausted = False
        self._batches = self._run()

    def __iter__(self) -> IndexedBatches:
        return self

    def __next__(self) -> tuple[FrameBatch, NDArray[np.int64], NDArray[np.bool_]]:
        return next(self._batches)

    def close(self) -> None:
        """Stop early and close the file."""
        self._batches.close()

    def index(self) -> FrameIndex:
        """Return the index of the whole file; raises `RuntimeError` before the last batch was taken."""
        if not self._exhausted:
            raise RuntimeError("the index is complete only after the last batch")
        pts, key = np.concatenate(self._pts), np.concatenate(self._key)
        return FrameIndex(pts, key, self._reader.time_base, self._clock.end(pts), not self._clock.repaired)

    def _run(self) -> Generator[tuple[FrameBatch, NDArray[np.int64], NDArray[np.bool_]], None, None]:
        info = self._reader.info
        converter = self._reader.converter()
        start = 0
        frames = self._reader.frames(self._clock)
        while True:
            pixels = np.empty((self._size, info.height, info.width, 3), np.uint8)
            stamps: list[tuple[int, bool]] = []
            for pts, frame in frames:
                converter.into(frame, pixels[len(stamps)])
                stamps.append((pts, frame.key_frame))
                if len(stamps) == self._size:
                    break
            n = len(stamps)
            if n:
                pts_n = np.array([p for p, _ in stamps], np.int64)
                key_n = np.array([k for _, k in stamps], np.bool_)
                self._pts.append(pts_n)
                self._key.append(key_n)
                yield FrameBatch(start, pixels[:n]), pts_n, key_n
                start += n
            if n < self._size:
                self._exhausted = True
                return


def _check(order: NDArray[np.int64], index: FrameIndex) -> None:
    low, high = (int(np.min(order)), int(np.max(order))) if len(order) else (0, 0)
    if low < 0 or high >= len(index):
        raise IndexError(f"frames {low}..{high} asked for, the file has {len(index)}")


def _rate(stream: VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and _PLAUSIBLE_FPS[0] <= rate <= _PLAUSIBLE_FPS[1]:
            return rate
    return STILL_FPS


def _is_still(container: InputContainer, stream: VideoStream, damage: DamageLog) -> bool:
    """Say whether the file is a picture format (`png_pipe`, `image2`, AVIF, HEIC, ...), or a GIF of one frame."""
    names = container.format.name.split(",")
    if "image2" in names or any(name.endswith("_pipe") for name in names):
        return True
    if container.metadata.get("major_brand") in {"avif", "heic", "mif1"}:
        return True
    if "gif" in names or "apng" in names:
        return next(decode_video(container, stream, damage), None) is None
    return False


def _undecodable(path: Path, codec: str) -> InputError:
    with path.open("rb") as file:
        # RFC 9649: the extended header's flags are byte 20 of the file, its second bit says animation.
        head = file.read(21)
    if codec == "webp" and head[12:16] == b"VP8X" and head[20] & 2:
        return InputError(
            f"{str(path)!r} is animated WebP, which FFmpeg does not decode.", "Turn it into a GIF or MP4."
        )
    return InputError(f"No picture of {str(path)!r} ({codec}) can be decoded.", "Give a file that a player can play.")
