"""The planted plugin, installed for this process and for the workers, and a small job for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lipsync_core.registry import Registry, discover
from tests.core.clips import write_sound, write_video
from tests.core.plugins_on_disk import install

from . import planted


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """What this process sees: the planted plugin alone. Worker processes see it beside those installed."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    point = install(folder, "planted", "planted_plugin", f"from {planted.__name__} import lipsync_register_backends\n")
    more = [str(folder), str(planted.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(more))
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.toml").write_text(planted.PROFILE)
    return discover([point])


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twelve light frames, in each of which the fake aligner finds a face."""
    write_video(tmp_path / "in.mp4", np.full((12, 48, 48, 3), 200, np.uint8))
    return tmp_path / "in.mp4"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """As long as the video."""
    write_sound(tmp_path / "say.wav", seconds=0.48)
    return tmp_path / "say.wav"
