"""Encoding finished frames in segments, so that an interrupted job goes on after its last whole segment."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from lipsync_core.errors import OutputError
from lipsync_core.media.color import UNTAGGED, ColorTags, Matrix, YuvConverter
from lipsync_core.media.orientation import AS_STORED, Orientation
from lipsync_core.media.probe import reason
from lipsync_core.media.reader import VideoReader
from lipsync_core.types import FrameBatch

CODECS: Final = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
"""Encoder for each output suffix."""

SEGMENT_SUFFIX: Final = ".mkv"
SEGMENT_TICK: Final = Fraction(1, 25)
"""Frame k of a segment is stored at k · 1/25 s whatever the rate: whole milliseconds, which is Matroska's clock."""

BITEXACT: Final = 0x400
"""`AVFMT_FLAG_BITEXACT`: no random ids, no version strings. (PyAV's stub says its enum has no number.)"""

DEFAULT_CRF: Final = 18
"""LatentSync's final x264 encode (FACTS §8): visually lossless on talking heads."""

ENCODER_THREADS: Final = 4
"""Fixed: the bytes x264 writes depend on its thread count, and a job resumed on another machine must match."""

_X264_PRESET: Final = "veryfast"
"""1080×1920, crf 18, CPU ms a frame on a 2-core EPYC: superfast 19, veryfast 26, faster 48, medium 73 (luma PSNR 48.3,
47.0, 48.0, 48.5 dB at 6.2, 2.9, 3.3, 3.4 Mb/s): the last preset that keeps up with 25 fps on one core."""

_X264_PARAMS: Final = "mbtree=0"
"""Macroblock-tree rate control (x264 core 165, its assembly) reads memory nobody wrote: of 300 encodes of the same 30
frames beside other allocations, 145 came out in 23 other ways; without it none did. The price at one PSNR is about a
seventh more bytes; at one crf it is 1 dB better and half as large again."""

_VP9_CRF_OFFSET: Final = 6
"""VP9's scale goes to 63; crf 24 there gave the PSNR and the size of x264's 18 (47.5 dB, 3.1 Mb/s; 27 ms a frame)."""

_MAX_CRF: Final = 51
_RATE_DENOMINATOR: Final = 1001


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """How the output's pictures are encoded.

    width, height: as shown, px. orientation: how the file is to say that its stored pictures are turned. fps: nominal
    rate for the encoder's decisions; timestamps come from the timeline. color: the source's tags.
    sample_aspect_ratio: of a stored pixel. crf: 0 (lossless) to 51 on x264's scale. codec: of `CODECS`.
    """

    width: int
    height: int
    fps: Fraction
    codec: str
    crf: int = DEFAULT_CRF
    orientation: Orientation = AS_STORED
    color: ColorTags = UNTAGGED
    sample_aspect_ratio: Fraction = Fraction(1)

    @classmethod
    def for_video(
        cls, reader: VideoReader, output: Path, *, fps: Fraction | None = None, crf: int = DEFAULT_CRF
    ) -> EncodeSettings:
        """Return settings that keep the source's size, orientation and colour; `fps` (default the source's) is new.

        Raises `OutputError` for a suffix that is not in `CODECS`, and for WebM where pixels are not square: VP9 does
        not say their shape, and PyAV 18.1 cannot make the container say it.
        """
        info = reader.info
        if codec_for(output) == "libvpx-vp9" and reader.sample_aspect_ratio != 1:
            raise OutputError(
                "A .webm file cannot keep this video's pixels, which are not square.",
                "Write .mp4, .mov or .mkv instead.",
            )
        _, stored_height = reader.orientation.turned(info.width, info.height)
        # A photo becomes an ordinary video: upright, limited range. Players would do worse with its own ways.
        still = ColorTags(space=Matrix.RGB, primaries=reader.color.primaries, trc=reader.color.trc)
        color = still if reader.is_still else reader.color
        return cls(
            width=info.width,
            height=info.height,
            fps=fps or info.fps,
            codec=codec_for(output),
            crf=crf,
            orientation=AS_STORED if reader.is_still else reader.orientation,
            color=color.for_encoding(stored_height),
            sample_aspect_ratio=reader.sample_aspect_ratio,
        )

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= _MAX_CRF:
            raise ValueError(f"crf must be 0 to {_MAX_CRF}, got {self.crf}")

    @property
    def rate(self) -> Fraction:
        """`fps` in numbers an encoder takes (the average of a variable rate can be any fraction)."""
        return max(self.fps.limit_denominator(_RATE_DENOMINATOR), Fraction(1, _RATE_DENOMINATOR))

    @property
    def pix_fmt(self) -> str:
        """4:2:0, which everything plays; H.264 has it for even sizes only, so an odd size is kept as 4:4:4.

        (Its cropping works in whole chroma samples, two pixels in 4:2:0; VP9 has no such limit.)
        """
        if self.codec == "libx264" and (self.width % 2 or self.height % 2):
            return "yuv444p"
        return "yuv420p"

    @property
    def options(self) -> dict[str, str]:
        """The encoder's own options."""
        if self.codec == "libvpx-vp9":
            crf = str(self.crf + _VP9_CRF_OFFSET)
            return {"crf": crf, "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1"}
        return {"crf": str(self.crf), "preset": _X264_PRESET, "x264-params": _X264_PARAMS}


def codec_for(output: Path) -> str:
    """Return the video encoder for an output path; raises `OutputError` naming the suffixes there are."""
    codec = CODECS.get(output.suffix.lower())
    if codec is None:
        known = ", ".join(CODECS)
        what = f"The suffix {output.suffix!r}" if output.suffix else "A name without a suffix"
        raise OutputError(
            f"{what} is not one of a video this tool writes.", f"End the output's name in one of {known}."
        )
    return codec


class SegmentWriter:
    """Writes one video-only segment; its name appears when it is whole, after `close`.

    Use as a context manager: an exception inside leaves nothing behind. Raises `OutputError` where the disk is full
    or the folder cannot be written.
    """

    def __init__(self, path: str | Path, settings: EncodeSettings) -> None:
        self.path = Path(path)
        self.count = 0
        self._settings = settings
        self._converter = YuvConverter(settings.color, settings.orientation, settings.pix_fmt)
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        try:
            self._container = av.open(f"file:{self._partial}", "w", format="matroska")
            self._container.flags |= BITEXACT
            self._stream = self._add_stream(self._container)
            self._container.start_encoding()  # opens the file: a folder that cannot be written shows now
        except (FFmpegError, OSError) as error:
            self.discard()
            raise cannot_write(self.path, error) from error

    def _add_stream(self, container: OutputContainer) -> VideoStream:
        settings = self._settings
        stream = container.add_stream(settings.codec, rate=settings.rate, options=settings.options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = settings.orientation.turned(settings.width, settings.height)
        context.pix_fmt = settings.pix_fmt
        context.time_base = 1 / settings.rate
        context.sample_aspect_ratio = settings.sample_aspect_ratio
        context.color_range = settings.color.range
        context.colorspace = settings.color.space
        context.color_primaries = settings.color.primaries
        context.color_trc = settings.color.trc
        context.thread_count = ENCODER_THREADS
        return stream

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def write(self, frames: FrameBatch) -> None:
        """Append the frames, uint8 RGB of the settings' size; `frames.start` is the caller's own affair."""
        for pixels in frames.pixels:
            if pixels.shape[:2] != (self._settings.height, self._settings.width):
                raise ValueError(
                    f"frame of {pixels.shape[:2]} in a video of {self._settings.height, self._settings.width}"
                )
            frame = self._converter.frame(pixels)
            frame.pts = self.count
            frame.time_base = 1 / self._settings.rate
            self.count += 1
            self._encode(frame)

    def close(self) -> None:
        """Finish the segment and give it its name; a second call does nothing."""
        if self._container is None:
            return
        if not self.count:
            self.discard()
            raise ValueError(f"no frame was written to {self.path.name}")
        self._encode(None)
        try:
            self._container.close()
            self._container = self._stream = None  # the stream holds the encoder's frames: 60 MB of 720p
            with self._partial.open("rb+") as file:
                os.fsync(file.fileno())  # or a name without its content could be left where the power fails
            self._partial.replace(self.path)
        except (FFmpegError, OSError) as error:
            self.discard()
            raise cannot_write(self.path, error) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            with contextlib.suppress(FFmpegError):  # the disk may be full; what was written goes away below
                container.close()
        self._partial.unlink(missing_ok=True)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        assert self._container is not None, "the segment is closed"
        assert self._stream is not None
        try:
            for packet in self._stream.encode(frame):
                assert packet.pts is not None
                # Order is all a segment has to keep (SEGMENT_TICK); `mux` gives the packets their times.
                packet.time_base = SEGMENT_TICK
                packet.duration = 1
                self._container.mux(packet)
        except (FFmpegError, OSError) as error:
            self.discard()
            raise cannot_write(self.path, error) from error


def cannot_write(path: Path, error: Exception) -> OutputError:
    """Return what to say where a file cannot be written."""
    return OutputError(
        f"{str(path)!r} cannot be written ({reason(error)}).",
        "Free some space, or choose a folder that can be written.",
    )
