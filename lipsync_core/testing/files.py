"""Sample clips as files: the drawn face talking, and a sound like speech."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np

from lipsync_core.testing import samples


def write_video(path: Path, start: int, stop: int, *, face: bool = True) -> Path:
    """Write frames `start`…`stop` − 1 of the sample clip, without sound; `face=False` shows the background alone."""
    make = samples.frames if face else samples.empty_frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=samples.FPS)
        stream.height, stream.width = samples.HEIGHT, samples.WIDTH
        stream.pix_fmt = "yuv420p"
        for number in range(start, stop):
            picture = make(number, number + 1).pixels[0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_speech(path: Path, start_s: float, stop_s: float, rate: int) -> Path:
    """Write what the sample clip says from `start_s` to `stop_s`, mono."""
    said = samples.speech(stop_s, rate)[round(start_s * rate) :]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(said, -1, 1) * 32767).astype("<i2").tobytes())
    return path
