"""Show that peak memory does not grow with length: `python -m benchmarks.memory [--data FOLDER]`.

Dubs a 20 s and a 10 min 720 × 1280 video, made of one clip end to end, by the command line, and prints the peak
resident memory of both and their ratio. Takes as long as dubbing ten minutes does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.clips import FPS, Piece, repeat_media, scaled_to, write_sound, write_video
from benchmarks.pairs import DATA
from lipsync_core.paths import CACHE_VARIABLE

CLIP, CLIP_SECONDS = "ls_demo1.mp4", 10
SOUND, SOUND_SECONDS = "ls_demo2_dub.wav", 19
SIZE: Final = (720, 1280)
SHORT_S, LONG_S = 20.0, 600.0
WITHIN: Final = 0.1  # of each other (issue 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both jobs and return 0 where their peaks are within 10 % of each other, else 1."""
    parser = argparse.ArgumentParser(description="Compare the peak memory of a short and a long job.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the clips")
    parser.add_argument("--seconds", type=float, default=LONG_S, help="length of the long job")
    options = parser.parse_args(arguments)
    peaks = []
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as temporary:
        folder = Path(temporary)
        os.environ[CACHE_VARIABLE] = str(folder / "cache")
        clip = Piece(options.data / CLIP, 0, CLIP_SECONDS * FPS)
        video = write_video(folder / "clip.mkv", [clip], scaled_to(*SIZE))
        sound = write_sound(folder / "sound.wav", [Piece(options.data / SOUND, 0, SOUND_SECONDS * FPS)])
        for seconds in (SHORT_S, options.seconds):
            long_video = repeat_media(video, folder / f"{seconds:.0f}s.mkv", seconds)
            long_sound = repeat_media(sound, folder / f"{seconds:.0f}s.wav", seconds)
            output = folder / f"{seconds:.0f}s.mp4"
            summary = _dub(long_video, long_sound, output)
            peaks.append(summary["peak_rss_bytes"])
            speed = f"{summary['realtime_factor']:.2f} x real time"
            _say(f"{seconds:.0f} s of {SIZE[0]}x{SIZE[1]}: at most {peaks[-1] / 1e6:.0f} MB, {speed}")
            for file in (long_video, long_sound, output):
                file.unlink()
    ratio = peaks[1] / peaks[0]
    _say(f"long / short: {ratio:.3f}")
    return 0 if abs(ratio - 1) <= WITHIN else 1


def _dub(video: Path, audio: Path, output: Path) -> dict[str, Any]:
    """Run the command as a user does and return its summary."""
    command = [sys.executable, "-m", "lipsync_core", "run", str(video), str(audio), "-o", str(output), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
