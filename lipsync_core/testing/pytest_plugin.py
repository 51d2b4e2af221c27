"""Fixtures for the tests of a plugin; pytest loads this through the entry point `lipsync`.

Each fixture imports what it needs when it is asked for: at pytest's start nothing heavy is.
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import pytest


def _write_video(path: Path, frames: int, face: bool) -> Path:
    import av  # noqa: PLC0415 - heavy

    from lipsync_core.testing import samples  # noqa: PLC0415 - heavy

    make = samples.frames if face else samples.empty_frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=samples.FPS)
        stream.height, stream.width = samples.HEIGHT, samples.WIDTH
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = make(number, number + 1).pixels[0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def _write_speech(path: Path, seconds: float, rate: int) -> Path:
    from lipsync_core.testing.samples import speech  # noqa: PLC0415 - heavy

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((speech(seconds, rate) * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def lipsync_clip(tmp_path: Path) -> Callable[..., Path]:
    """Make a silent video of 25 frames/s: `lipsync_clip(frames=40, face=True, name="talker.mp4")`.

    The drawn face talks and is found by the aligners; with `face=False` only the background is to be seen.
    """

    def make(frames: int = 40, *, face: bool = True, name: str = "talker.mp4") -> Path:
        return _write_video(tmp_path / name, frames, face)

    return make


@pytest.fixture
def lipsync_speech(tmp_path: Path) -> Callable[..., Path]:
    """Make a mono WAV file of a sound like speech: `lipsync_speech(seconds=1.6, rate=16000, name="speech.wav")`."""

    def make(seconds: float = 1.6, *, rate: int = 16000, name: str = "speech.wav") -> Path:
        return _write_speech(tmp_path / name, seconds, rate)

    return make


@pytest.fixture(scope="session")
def lipsync_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights of tiny dimensions; skips where torch is not installed."""
    for module in ("torch", "diffusers", "safetensors"):
        pytest.importorskip(module, reason='tiny weights need torch: pip install "lipsync-core[torch]"')
    from lipsync_core.models.tiny import write_tiny  # noqa: PLC0415 - heavy

    root = tmp_path_factory.mktemp("lipsync") / "tiny"
    write_tiny(root)
    return root
