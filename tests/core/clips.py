"""Small media files made at test time."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(path: Path, frames: NDArray[np.uint8], *, fps: Fraction = Fraction(25), codec: str = "libx264") -> None:
    """Write RGB frames [n, H, W, 3] without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_sound(path: Path, *, seconds: float, rate: int = 16000, hz: float = 220.0) -> None:
    """Write a mono 16-bit WAV with a tone that swells and falls four times a second, roughly as syllables do."""
    t = np.arange(round(seconds * rate)) / rate
    samples = 0.4 * np.sin(2 * np.pi * hz * t) * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * t))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
