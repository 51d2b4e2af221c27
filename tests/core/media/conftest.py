"""Clips made with PyAV as the tests run. Each frame carries its number, so that any wrong frame is seen."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

_CELLS = (3, 4)  # rows and columns of the number: 12 bits, most significant first


class Clips:
    """Writes small files into one folder; equal arguments are the test's business."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def numbered(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
        """Draw `number` (< 4096) as light and dark cells that survive lossy coding, with some colour."""
        rows, columns = _CELLS
        bits = np.array([number >> k & 1 for k in range(rows * columns - 1, -1, -1)]).reshape(rows, columns)
        y = np.arange(height) * rows // height
        x = np.arange(width) * columns // width
        light = bits[y][:, x].astype(bool)[..., None]
        return np.ascontiguousarray(np.where(light, [190, 200, 230], [60, 40, 30]), np.uint8)

    @staticmethod
    def number(pixels: NDArray[np.uint8]) -> int:
        """Read the number of a picture."""
        rows, columns = _CELLS
        height, width = pixels.shape[:2]
        value = 0
        for r in range(rows):
            for c in range(columns):
                y, x = (2 * r + 1) * height // (2 * rows), (2 * c + 1) * width // (2 * columns)
                value = value * 2 + int(pixels[y - 2 : y + 2, x - 2 : x + 2].mean() > 125)
        return value

    def video(
        self,
        name: str,
        codec: str = "libx264",
        *,
        n: int = 30,
        rate: Fraction | int = 25,
        size: tuple[int, int] = (64, 48),
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        context: dict[str, Any] | None = None,
        pts: Sequence[int] | None = None,
        time_base: Fraction | None = None,
        rotation: tuple[float, bool, bool] | None = None,
        pictures: Sequence[NDArray[np.uint8]] | None = None,
        sound: NDArray[np.float32] | None = None,
        sound_codec: str = "aac",
        sound_rate: int = 44100,
        sound_start: Fraction = Fraction(0),
        container_options: dict[str, str] | None = None,
        drop: Sequence[int] = (),
    ) -> Path:
        """Write frames numbered from 0 at `pts` of `time_base` (default: at `rate`); packets in `drop` are lost."""
        path = self.folder / name
        width, height = size
        base = time_base or 1 / Fraction(rate)
        with av.open(str(path), "w", container_options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=Fraction(rate), options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.time_base = base
            for key, value in (context or {}).items():
                setattr(stream.codec_context, key, value)
            if rotation is not None:
                stream.set_display_rotation(*rotation)
            heard = None
            if sound is not None:
                heard = container.add_stream(sound_codec, rate=sound_rate)
                heard.codec_context.layout = "stereo" if sound.shape[0] == 2 else "mono"
            packets = []
            for i in range(n):
                picture = pictures[i] if pictures is not None else self.numbered(i, width, height)
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = (pts[i] if pts is not None else i), base
                packets += stream.encode(frame)
            packets += stream.encode(None)
            if sound is not None and heard is not None:
                packets += self._encoded(heard, sound, sound_rate, sound_start)
            for k, packet in enumerate(packets):
                if k not in drop:
                    container.mux(packet)
        return path

    def sound(
        self, name: str, samples: NDArray[np.float32], codec: str, rate: int = 44100, layout: str | None = None
    ) -> Path:
        """Write float32 [channels, n] as a sound file."""
        path = self.folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.codec_context.layout = layout or ("stereo" if samples.shape[0] == 2 else "mono")
            for packet in self._encoded(stream, samples, rate):
                container.mux(packet)
        return path

    @staticmethod
    def tone(seconds: float, rate: int = 44100, channels: int = 2, start: float = 0.0) -> NDArray[np.float32]:
        """Make a 440 Hz tone float32 [channels, n], silent before `start` s."""
        t = np.arange(round(seconds * rate)) / rate
        wave = 0.5 * np.sin(2 * np.pi * 440 * t) * (t >= start)
        return np.repeat(wave[None].astype(np.float32), channels, 0)

    @staticmethod
    def _encoded(
        stream: Any, samples: NDArray[np.float32], rate: int, start: Fraction = Fraction(0)
    ) -> list[av.Packet]:
        packets = []
        for at in range(0, samples.shape[1], 4096):
            part = np.ascontiguousarray(samples[:, at : at + 4096].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout=stream.codec_context.layout.name)
            frame.sample_rate = rate
            frame.pts, frame.time_base = at + round(start * rate), Fraction(1, rate)
            packets += stream.encode(frame)
        return packets + stream.encode(None)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return Clips(tmp_path_factory.mktemp("clips"))
