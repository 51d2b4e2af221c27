"""One dub in a process of its own, watched and measured: `python -m benchmarks.job JOB.json RESULT.json`.

A fresh process, so that peak memory and warm caches of one job say nothing about another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import Piece
from lipsync_core import landmarks as lm
from lipsync_core.analysis import Analysis, analyse
from lipsync_core.api import dub
from lipsync_core.backends import StageKind
from lipsync_core.cache import analysis_key, cached, content_hash
from lipsync_core.media.reader import VideoReader
from lipsync_core.progress import Silent
from lipsync_core.quality import metrics
from lipsync_core.registry import Entry, Registry
from lipsync_face.facemesh_opencv import FaceMeshAligner, FaceMeshOptions

# Rows of the exemplar's planned landmarks: jaw, then lips.
_PLAN_UPPER: Final = lm.JAW.stop + lm.UPPER_LIP_INNER - lm.LIPS.start
_PLAN_LOWER: Final = lm.JAW.stop + lm.LOWER_LIP_INNER - lm.LIPS.start


@dataclass(frozen=True, slots=True)
class Job:
    """What to dub. `truth`: the pieces whose sound `audio` is, so the true mouths; watch: measure the output too."""

    name: str
    video: Path
    audio: Path
    output: Path
    overrides: tuple[str, ...] = ()
    truth: tuple[Piece, ...] = ()
    watch: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it. Series have one number a frame, openings in outer eye corners' distances, NaN without a face.

    render_fps: frames ÷ seconds of the whole second pass (decode, generate, composite, encode).
    asked: the plan. shown: re-detected in the written file. base: the same source frames untouched. true: the mouth
    that really said it. lengths: frames of each piece of `truth`. flicker, sharpness: of the written file against its
    base frames; `raw_`: before the encoder. changed_outside: pixels changed where the mask is 0, before the encoder.
    """

    seconds: float
    realtime_factor: float
    peak_rss_bytes: int
    width: int
    height: int
    frames: int
    render_fps: float
    asked: list[float] = dataclasses.field(default_factory=list)
    shown: list[float] = dataclasses.field(default_factory=list)
    base: list[float] = dataclasses.field(default_factory=list)
    true: list[float] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)
    flicker: float = float("nan")
    sharpness: float = float("nan")
    raw_flicker: float = float("nan")
    raw_sharpness: float = float("nan")
    changed_outside: int = 0


def run_job(job: Job) -> Figures:
    """Run a job in a fresh process; raises `RuntimeError` with what it wrote where it fails."""
    given, answer = job.output.with_suffix(".job.json"), job.output.with_suffix(".figures.json")
    given.write_text(json.dumps(dataclasses.asdict(job), default=str), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.job", str(given), str(answer)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"The job {job.name} failed:\n{process.stderr}")
    return Figures(**json.loads(answer.read_text(encoding="utf-8")))


def measure(job: Job) -> Figures:
    """Run a job in this process and measure it."""
    watch = _Watch()
    clock = _RenderClock()
    with mock.patch.object(Registry, "create", watch.create) if job.watch else contextlib.nullcontext():
        result = dub(job.video, job.audio, job.output, overrides=job.overrides, overwrite=True, progress=clock)
    figures = Figures(
        seconds=result.seconds,
        realtime_factor=result.realtime_factor,
        peak_rss_bytes=_peak_rss() or result.peak_rss_bytes or 0,
        width=result.width,
        height=result.height,
        frames=result.frames,
        render_fps=clock.frames / clock.seconds,
    )
    if not job.watch:
        return figures
    source, written = _analysis(job.video), _analysis(job.output)
    order = watch.source_frames
    landmarks = _landmarks(source)[order]
    look = metrics.MouthLook()
    pictures = VideoReader(job.video).in_order(source.index, order)
    for index, (base, shown) in enumerate(zip(pictures, VideoReader(job.output).pictures(), strict=True)):
        if np.isfinite(landmarks[index]).all():
            look.add(index, shown.pixels, base, landmarks[index])
    true = [metrics.mouth_opening(_landmarks(_analysis(p.path))[p.first : p.stop]) for p in job.truth]
    return dataclasses.replace(
        figures,
        asked=_asked(watch.target, landmarks).tolist(),
        shown=metrics.mouth_opening(_landmarks(written)).tolist(),
        base=metrics.mouth_opening(landmarks).tolist(),
        true=np.concatenate(true).tolist() if true else [],
        lengths=[len(piece) for piece in job.truth],
        flicker=look.flicker,
        sharpness=look.sharpness,
        raw_flicker=watch.look.flicker,
        raw_sharpness=watch.look.sharpness,
        changed_outside=watch.changed_outside,
    )


def _peak_rss() -> int | None:
    """Return this process's highest resident memory, bytes; None where there is no /proc.

    Not `getrusage`: on Linux its figure is carried over from the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


class _RenderClock(Silent):
    """Times the second pass."""

    def __init__(self) -> None:
        self.frames = 0
        self._began: float | None = None
        self._last = 0.0

    @property
    def seconds(self) -> float:
        """Wall seconds from the pass's start to its last frame."""
        return self._last - (self._began or 0.0)

    def start(self, title: str, total: int | None) -> None:
        self._began = time.perf_counter() if title == "Rendering" else None

    def advance(self, frames: int) -> None:
        if self._began is not None:
            self.frames += frames
            self._last = time.perf_counter()


class _Watch:
    """Takes the place of `Registry.create` to listen in on the exemplar's plan and on the compositor."""

    def __init__(self) -> None:
        self.look = metrics.MouthLook()
        self.changed_outside = 0
        self.source_frames: NDArray[np.int64] = np.zeros(0, np.int64)
        self.target: NDArray[np.float32] = np.zeros((0, 0, 2), np.float32)
        self._create = Registry.create

    def create(self, entry: Entry, options: Any) -> Any:
        backend = self._create(Registry(), entry, options)
        if entry.spec.kind is StageKind.DENOISER:
            prepare = backend.prepare

            def prepared(source: Any) -> None:
                prepare(source)
                self.source_frames = source.source_frames.copy()
                plan = getattr(backend, "plan", None)
                self.target = plan.targets.read(0, len(plan.mouth))

            backend.prepare = prepared
        if entry.spec.kind is StageKind.COMPOSITOR:
            composite = backend.composite

            def composited(frames: Any, faces: Any, mask: Any, generated: Any) -> Any:
                finished = composite(frames, faces, mask, generated)
                self._see(frames, faces, mask, finished)
                return finished

            backend.composite = composited
        return backend

    def _see(self, frames: Any, faces: Any, mask: Any, finished: Any) -> None:
        for row, (before, after) in enumerate(zip(frames.pixels, finished.pixels, strict=True)):
            matrix, landmarks = faces.track.frame_to_crop[row], faces.track.landmarks[row]
            self.changed_outside += metrics.changed_outside(before, after, mask.generate[row], matrix)
            self.look.add(frames.start + row, after, before, landmarks)


def _analysis(path: Path) -> Analysis:
    """Return the faces of a video by the default aligner, from the cache where it has been seen."""
    aligner = FaceMeshAligner(FaceMeshOptions())
    key = analysis_key(content_hash(path), "benchmarks", aligner.version, {})
    return cached(key, lambda: analyse(VideoReader(path), aligner, Silent()))[0]


def _landmarks(analysis: Analysis) -> NDArray[np.float32]:
    """Return [n, 68, 2] px, NaN where there is no face."""
    points = np.concatenate([track.landmarks for track in analysis.tracks])
    return np.where(analysis.found[:, None, None], points, np.float32(np.nan))


def _asked(target: NDArray[np.float32], base: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the opening the plan asks for, [N], in the base frame's eye distances."""
    points = base.astype(np.float64).copy()
    points[:, lm.UPPER_LIP_INNER], points[:, lm.LOWER_LIP_INNER] = target[:, _PLAN_UPPER], target[:, _PLAN_LOWER]
    return metrics.mouth_opening(points)


def _read(path: Path) -> Job:
    table = json.loads(path.read_text(encoding="utf-8"))
    truth = tuple(Piece(Path(p["path"]), p["first"], p["stop"]) for p in table.pop("truth"))
    table |= {key: Path(table[key]) for key in ("video", "audio", "output")}
    return Job(**table | {"overrides": tuple(table["overrides"]), "truth": truth})


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(dataclasses.asdict(measure(_read(Path(sys.argv[1]))))), encoding="utf-8")
