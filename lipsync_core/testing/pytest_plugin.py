"""Fixtures for the tests of a plugin; pytest loads this through the entry point `lipsync`.

Each fixture imports what it needs when it is asked for: at pytest's start nothing heavy is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def lipsync_clip(tmp_path: Path) -> Callable[..., Path]:
    """Make a silent video of 25 frames/s: `lipsync_clip(frames=40, face=True, name="talker.mp4")`.

    The drawn face talks and is found by the aligners; with `face=False` only the background is to be seen.
    """

    def make(frames: int = 40, *, face: bool = True, name: str = "talker.mp4") -> Path:
        from lipsync_core.testing import files  # noqa: PLC0415 - heavy

        return files.write_video(tmp_path / name, 0, frames, face=face)

    return make


@pytest.fixture
def lipsync_speech(tmp_path: Path) -> Callable[..., Path]:
    """Make a mono WAV file of a sound like speech: `lipsync_speech(seconds=1.6, rate=16000, name="speech.wav")`."""

    def make(seconds: float = 1.6, *, rate: int = 16000, name: str = "speech.wav") -> Path:
        from lipsync_core.testing import files  # noqa: PLC0415 - heavy

        return files.write_speech(tmp_path / name, 0.0, seconds, rate)

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
