"""How time and memory grow with the work: `python -m benchmarks.scaling [--full] [AXIS …]`.

Axes: `length` of the video, `resolution`, `steps` of the denoiser, `cores`. Each point is `lipsync run` in a process of
its own, nothing cached; a line is fitted through the points of each axis and its slope printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.clips import FPS, Piece, repeat_media, scaled_to, write_sound, write_video
from benchmarks.pairs import DATA
from lipsync_core.bench.stats import exponent, slope
from lipsync_core.paths import CACHE_VARIABLE

CLIP: Final = "grid_rz_sbwe5n.mpg"
SOUND, SOUND_FRAMES = "ls_demo2_dub.wav", 19 * FPS
SIZE: Final = (360, 288)
SECONDS: Final = (3.0, 6.0, 12.0)
FULL_SECONDS: Final = (10.0, 60.0, 600.0)
SIZES: Final = ((360, 288), (720, 576), (1440, 1152))
FULL_SIZES: Final = (*SIZES, (2160, 1728))
STEPS: Final = (1, 2, 4, 8)
STEPS_MODEL: Final = "mini"  # packaged: a larger one that is here too would take hours


@dataclass(frozen=True, slots=True)
class Point:
    """One job: where it lies on its axis, and what it cost."""

    at: float
    seconds: float
    cpu_s: float
    peak_bytes: int
    frames: int


@dataclass(frozen=True, slots=True)
class Axis:
    """Points of one axis and what its numbers are."""

    name: str
    unit: str
    points: tuple[Point, ...]

    def fitted(self) -> list[str]:
        """Return the slopes as lines: time and memory a unit, and the power of the axis that time goes with.

        Of one point, none.
        """
        sizes = [point.at for point in self.points]
        if len(sizes) < 2:
            return []
        cpu = [point.cpu_s for point in self.points]
        _, more_cpu = slope(sizes, cpu)
        _, more_wall = slope(sizes, [point.seconds for point in self.points])
        _, more_memory = slope(sizes, [point.peak_bytes / 1e6 for point in self.points])
        return [
            f"{self.name}: {more_cpu:+.4g} CPU s, {more_wall:+.4g} s and {more_memory:+.4g} MB a {self.unit}; "
            f"CPU time goes with its power {exponent(sizes, cpu):.2f}"
        ]

    def rows(self) -> list[list[str]]:
        """Return the table, its heading first."""
        head = [f"{self.name}, {self.unit}", "CPU s", "s", "peak MB", "frames"]
        body = [
            [f"{p.at:g}", f"{p.cpu_s:.2f}", f"{p.seconds:.2f}", f"{p.peak_bytes / 1e6:.0f}", str(p.frames)]
            for p in self.points
        ]
        return [head, *body]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the axes asked for and print points and slopes."""
    parser = argparse.ArgumentParser(description="Measure how time and memory grow.")
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"of {', '.join(AXES)}; all where none is given")
    parser.add_argument("--full", action="store_true", help="up to ten minutes of video, and 2160 px")
    options = parser.parse_args(arguments)
    for axis in measured(options.axes or list(AXES), full=options.full):
        lines = ["  ".join(f"{cell:>18}" for cell in row) for row in axis.rows()]
        sys.stdout.write("\n".join([*lines, *axis.fitted()]) + "\n\n")
        sys.stdout.flush()
    return 0


def measured(names: Sequence[str], *, full: bool) -> Iterator[Axis]:
    """Yield each axis as it is done."""
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as temporary:
        work = Work(Path(temporary), full)
        for name in names:
            yield AXES[name](work)


class Work:
    """Makes clips of a length and size, and dubs them."""

    def __init__(self, folder: Path, full: bool) -> None:
        self.folder, self.full = folder, full
        self._clips: dict[tuple[int, int], Path] = {}
        self._points: dict[tuple[Any, ...], Point] = {}
        sound = Piece(DATA / SOUND, 0, SOUND_FRAMES)
        self._sound = write_sound(folder / "sound.wav", [sound])

    def point(self, at: float, seconds: float, size: tuple[int, int], *more: str, cores: int | None = None) -> Point:
        """Dub `seconds` of a clip of that size; a job that another axis has run already is not run again."""
        chosen = tuple(sorted(os.sched_getaffinity(0))[:cores])
        key = seconds, size, more, chosen
        if key not in self._points:
            video = repeat_media(self._clip(size), self.folder / "video.mkv", seconds)
            sound = repeat_media(self._sound, self.folder / "say.wav", seconds)
            summary, cpu_s = self._run(video, sound, *more, cores=chosen)
            self._points[key] = Point(at, summary["seconds"], cpu_s, summary["peak_rss_bytes"], summary["frames"])
        return dataclasses.replace(self._points[key], at=at)

    def _clip(self, size: tuple[int, int]) -> Path:
        if size not in self._clips:
            piece = Piece(DATA / CLIP, 0, 3 * FPS - 1)
            name = f"{size[0]}x{size[1]}.mkv"
            self._clips[size] = write_video(self.folder / name, [piece], scaled_to(*size))
        return self._clips[size]

    def _run(self, video: Path, sound: Path, *more: str, cores: Sequence[int]) -> tuple[dict[str, Any], float]:
        """Run the command as a user does; returns its summary and the CPU seconds of all its threads."""
        for file in (self.folder / "cache" / "analysis").glob("*"):
            file.unlink()
        output = self.folder / "out.mp4"
        command = [sys.executable, "-m", "lipsync_core", "run", str(video), str(sound), "-o", str(output)]
        process = subprocess.Popen(
            [*command, "--json", "--overwrite", *more],
            stdout=subprocess.PIPE,
            env=os.environ | {CACHE_VARIABLE: str(self.folder / "cache")},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        assert process.stdout is not None
        with process.stdout as answer:
            text = answer.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        summary: dict[str, Any] = json.loads(text)
        return summary, usage.ru_utime + usage.ru_stime


def _length(work: Work) -> Axis:
    return Axis("length", "s of video", tuple(work.point(length, length, SIZE) for length in _seconds(work)))


def _resolution(work: Work) -> Axis:
    sizes = FULL_SIZES if work.full else SIZES
    return Axis("resolution", "megapixel", tuple(work.point(w * h / 1e6, 3.0, (w, h)) for w, h in sizes))


def _steps(work: Work) -> Axis:
    profile = ("--profile", "onnx", "--model", STEPS_MODEL)
    points = [work.point(n, 2.0, SIZE, *profile, "--set", f"denoiser.options.steps={n}") for n in STEPS]
    return Axis("steps", f"step (onnx, {STEPS_MODEL})", tuple(points))


def _cores(work: Work) -> Axis:
    most = len(os.sched_getaffinity(0))
    counts = sorted({1, *(2**k for k in range(1, most.bit_length()) if 2**k <= most), most})
    seconds = _seconds(work)[0 if work.full else 1]
    return Axis("cores", "core", tuple(work.point(n, seconds, SIZE, cores=n) for n in counts))


def _seconds(work: Work) -> tuple[float, ...]:
    return FULL_SECONDS if work.full else SECONDS


AXES: Final[dict[str, Callable[[Work], Axis]]] = {
    "length": _length,
    "resolution": _resolution,
    "steps": _steps,
    "cores": _cores,
}


if __name__ == "__main__":
    sys.exit(main())
