"""Two hours of sound are streamed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

RATE = 16000


def speechlike(path: Path, minutes: int) -> Path:
    """Write bursts of a buzz, four a second, as a WAV."""
    t = np.arange(60 * RATE) / RATE
    burst = np.clip(np.sin(2 * np.pi * 4 * t), 0, None) * np.sign(np.sin(2 * np.pi * 140 * t))
    minute = np.rint(8000 * burst).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for _ in range(minutes):
            file.writeframesraw(minute)
    return path


@pytest.mark.slow
@pytest.mark.facemodel
def test_two_hours_take_no_more_memory_than_a_minute(shared_data: Path, tmp_path: Path) -> None:
    video = shared_data / "grid_rz_sbwe5n.mpg"
    peaks = []
    for minutes in (1, 120):
        sound = speechlike(tmp_path / f"{minutes}.wav", minutes)
        command = [sys.executable, "-m", "lipsync_core", "run", str(video), str(sound), "-o", str(tmp_path / "out.mp4")]
        done = subprocess.run(
            [*command, "--profile", "draft", "--length", "video", "--overwrite", "--json"],
            env={**os.environ, "LIPSYNC_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(json.loads(done.stdout)["peak_rss_bytes"])
    assert peaks[1] < 1.1 * peaks[0]
