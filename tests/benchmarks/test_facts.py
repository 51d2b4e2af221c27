"""What is said of a dubbed file is counted, and what is wrong with it is said."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from benchmarks.facts import Facts, main, problems
from tests.core.clips import write_sound

GOOD = Facts(64, 48, Fraction(25), 50, 2.0, 2.02, "aac, 16000 Hz, mono")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (GOOD, []),
        (replace(GOOD, width=48, height=64), ["the size is not the source's, 64x48"]),
        (replace(GOOD, fps=Fraction(24), video_s=2.02), ["the rate is not", "2.010 s of sound are 48 frames"]),
        (replace(GOOD, frames=51), ["2.010 s of sound are 50 frames"]),
        (replace(GOOD, sound_s=2.05), ["differ by more than a frame"]),
        (replace(GOOD, sound_s=None), ["differ by more than a frame"]),
    ],
)
def test_problems(out: Facts, said: list[str]) -> None:
    found = problems(out, GOOD, audio_s=2.01)
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_the_command_counts(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = shared_data / "grid_rz_sbwe5n.mpg"
    write_sound(tmp_path / "long.wav", seconds=3.0)
    assert main([str(clip), "--video", str(clip), "--audio", str(tmp_path / "long.wav")]) == 0
    assert "75 frames, 360x288, 25 fps; picture 3.000 s, sound 2.978 s (mp2, 44100" in capsys.readouterr().out
    assert main([str(clip), "--video", str(clip), "--audio", str(clip)]) == 1
    assert "2.978 s of sound are 74 frames" in capsys.readouterr().out
