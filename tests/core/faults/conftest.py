"""A job of five segments, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.core.clips import write_sound, write_video

from . import process

FRAMES = 60


def fill(folder: Path, frames: int = FRAMES) -> Path:
    """Write the inputs of a job: pictures that all differ, and sound as long."""
    greys = 100 + (np.arange(frames) * 7) % 100
    write_video(folder / "in.mp4", np.stack([np.full((48, 48, 3), grey, np.uint8) for grey in greys]))
    write_sound(folder / "say.wav", seconds=frames / 25)
    (folder / "fake.toml").write_text(process.PROFILE)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the job writes when nothing happens to it."""
    place = fill(tmp_path_factory.mktemp("whole"))
    job = process.start(place)
    out, err = job.communicate()
    assert job.returncode == 0, (out, err)
    return (place / "out.mp4").read_bytes()


def litter(folder: Path) -> list[str]:
    """Return the names of what is in a folder beside inputs, output and cache."""
    known = {"in.mp4", "say.wav", "fake.toml", "cache", "out.mp4"}
    return sorted(path.name for path in folder.iterdir() if path.name not in known)
