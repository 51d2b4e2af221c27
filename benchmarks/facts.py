"""Show what a dubbed file is against what it was made from: `python -m benchmarks.facts OUT --video V --audio A`.

Everything is counted in the decoded streams, not read from the container's headers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lipsync_core.media.audio import AudioSource
from lipsync_core.media.reader import VideoReader


@dataclass(frozen=True, slots=True)
class Facts:
    """One file: size in px as shown, average rate in Hz, lengths in s."""

    width: int
    height: int
    fps: Fraction
    frames: int
    video_s: float
    sound_s: float | None
    sound: str

    @classmethod
    def of(cls, path: Path) -> Facts:
        """Decode `path` once and count; raises `InputError` where it is no video."""
        reader = VideoReader(path)
        index = reader.index()
        sound = AudioSource(path) if reader.info.has_audio else None
        described = f"{sound.codec_name}, {sound.sample_rate} Hz, {sound.layout}" if sound else "none"
        return cls(
            width=reader.info.width,
            height=reader.info.height,
            fps=reader.info.fps,
            frames=len(index),
            video_s=float(index.duration),
            sound_s=sound.duration if sound else None,
            sound=described,
        )


def problems(out: Facts, video: Facts, audio_s: float) -> list[str]:
    """Return what is not as it should be: size, rate, frames = sound × rate rounded, both streams within one frame."""
    found = []
    if (out.width, out.height) != (video.width, video.height):
        found.append(f"the size is not the source's, {video.width}x{video.height}")
    if out.fps != video.fps:
        found.append(f"the rate is not the source's, {video.fps}")
    wanted = round(audio_s * out.fps)
    if out.frames != wanted:
        found.append(f"{audio_s:.3f} s of sound are {wanted} frames")
    if out.sound_s is None or abs(out.sound_s - out.video_s) > 1 / out.fps:
        found.append("picture and sound differ by more than a frame")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the facts and return 0 where nothing is wrong with them, else 1."""
    parser = argparse.ArgumentParser(description="Compare a dubbed file with its source and its sound.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--video", type=Path, required=True, help="the source video")
    parser.add_argument("--audio", type=Path, required=True, help="the sound it was made to say")
    options = parser.parse_args(arguments)
    out, audio = Facts.of(options.output), AudioSource(options.audio)
    wrong = problems(out, Facts.of(options.video), audio.duration)
    sys.stdout.write(
        f"{options.output.name}: {out.frames} frames, {out.width}x{out.height}, {float(out.fps):.4g} fps; "
        f"picture {out.video_s:.3f} s, sound {out.sound_s or 0:.3f} s ({out.sound})\n"
    )
    sys.stdout.writelines(f"  {line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
