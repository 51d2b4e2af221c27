"""What a worker process does: a whole job or one stage, twice with the same backends, timed and watched."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lipsync_core.api import Dubber, make_stages
from lipsync_core.backends import StageKind
from lipsync_core.bench import meter
from lipsync_core.bench.alone import StageWork
from lipsync_core.bench.ledger import Ledger
from lipsync_core.bench.results import Run
from lipsync_core.bench.timed import LOAD, FirstFrame, TimedRegistry, timed_media
from lipsync_core.bench.worker import Task
from lipsync_core.cache import bypassed, content_hash
from lipsync_core.errors import LipsyncError
from lipsync_core.job import analysed
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import build_timeline
from lipsync_core.memory import keep_heap_small
from lipsync_core.progress import Silent
from lipsync_core.quality.metrics import changed_outside
from lipsync_core.registry import discover
from lipsync_core.settings import Settings, resolve


def measure(task: Task) -> dict[str, Any]:
    """Return the fields of a `results.Sample` that are known here."""
    keep_heap_small()  # as `lipsync run` does
    with meter.MemoryMeter() as memory:
        measured = _stage(task) if task.stage else _job(task)
    peaks = {"peak_rss_bytes": memory.peak_rss, "peak_vram_bytes": memory.peak_vram, "curve": memory.curve}
    return measured | peaks


def probe(task: Task) -> dict[str, Any]:
    """Find the first of the task's profiles that can be used; return what comes out with it, nothing timed.

    Raises the first profile's `LipsyncError` where none can.
    """
    errors: list[LipsyncError] = []
    for profile in task.profiles:
        one = dataclasses.replace(task, profiles=(profile,))
        try:
            return {"profile": profile, **(_stage_output(one) if task.stage else _job_output(one))}
        except LipsyncError as error:
            errors.append(error)
    raise errors[0]


def _job(task: Task) -> dict[str, Any]:
    ledger = Ledger()
    timed = TimedRegistry(discover(), ledger)
    (profile,) = task.profiles
    runs: dict[str, Any] = {}
    with Dubber(profile=profile, overrides=task.overrides, registry=timed) as dubber, bypassed():
        for name in ("cold", "warm"):
            first = FirstFrame()
            with timed_media(ledger, first):
                run = _one_job(task, dubber, ledger, first)
            runs[name] = dataclasses.asdict(_without_loading(run) if name == "cold" else run)
    return {"load_s": sum(timed.loads.values()), **runs}


def _one_job(task: Task, dubber: Dubber, ledger: Ledger, first: FirstFrame) -> Run:
    output, passes = Path(task.folder) / "measured.mp4", _Passes()
    began, cpu = time.perf_counter(), time.process_time()
    ledger.start()
    done = dubber.dub(task.video, task.audio, output, overwrite=True, resume=False, progress=passes)
    ledger.stop()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    output.unlink()
    accounts = {str(name): dataclasses.asdict(spent) for name, spent in ledger.accounts.items()}
    first_s = (first.at or began) - began
    return Run(seconds, cpu_s, first_s, done.frames, done.duration_s / seconds, accounts, [], passes.seconds())


def _without_loading(run: Run) -> Run:
    """Return the run as if the backends had been there: `Dubber` makes them inside its first job."""
    loaded = run.accounts.get(LOAD, {"wall": 0.0, "cpu": 0.0})
    seconds = run.seconds - loaded["wall"]
    return dataclasses.replace(
        run,
        seconds=seconds,
        cpu_s=run.cpu_s - loaded["cpu"],
        first_s=run.first_s - loaded["wall"],
        realtime_factor=run.realtime_factor * run.seconds / seconds,
        accounts={name: spent for name, spent in run.accounts.items() if name != LOAD},
    )


class _Passes:
    """Times the passes of a job."""

    def __init__(self) -> None:
        self._starts: list[tuple[str, float]] = []

    def start(self, title: str, total: int | None) -> None:
        """Note it."""
        self._starts.append((title, time.perf_counter()))

    def advance(self, frames: int) -> None:
        """Nothing to note."""

    def seconds(self) -> dict[str, float]:
        """Return each pass's seconds until the next began, the last until now."""
        ends = [*(at for _, at in self._starts[1:]), time.perf_counter()]
        return {title: end - at for (title, at), end in zip(self._starts, ends, strict=True)}


def _stage(task: Task) -> dict[str, Any]:
    work, load_s, _ = stage_work(task)
    meter.forget_peak()
    base = meter.resident_bytes()
    cold, warm = (dataclasses.asdict(work.run()) for _ in range(2))
    return {"load_s": load_s, "base_rss_bytes": base, "cold": cold, "warm": warm}


def stage_work(task: Task) -> tuple[StageWork, float, Settings]:
    """Make the inputs of a stage with the task's one profile.

    Returns them, the seconds it took to make its backend, and the settings; raises a `LipsyncError` where it cannot.
    """
    cv2.setNumThreads(1)  # as a job does
    kind = StageKind(task.stage or "")
    timed = TimedRegistry(discover(), Ledger())
    (profile,) = task.profiles
    settings, stages = make_stages(timed, resolve(timed, profile=profile, overrides=task.overrides))
    reader, sound = VideoReader(task.video), AudioSource(task.audio)
    analysis, _ = analysed(settings, stages, reader, content_hash(reader.path), Silent())
    timeline = build_timeline(analysis.index, reader.info.fps, audio_duration=sound.duration, still=reader.is_still)
    work = StageWork(kind, stages, reader, sound, analysis, timeline, settings.job.seed)
    return work, timed.loads[kind], settings


def _stage_output(task: Task) -> dict[str, Any]:
    work, _, settings = stage_work(task)
    work.run()
    output = Path(task.folder) / "output.npz"
    np.savez(output, **work.outputs)  # type: ignore[arg-type] # numpy's own stub takes no mapping of arrays
    return {
        "model": settings.job.model,
        "settings": settings.values(),
        "output": str(output),
        "changed_outside": None,
        "facts": work.facts(),
    }


def _job_output(task: Task) -> dict[str, Any]:
    changed = 0

    def seen(frames: Any, faces: Any, mask: Any, finished: Any) -> None:
        nonlocal changed
        matrices = faces.track.frame_to_crop
        for row in zip(frames.pixels, finished.pixels, mask.generate, matrices, strict=True):
            changed += changed_outside(*row)

    (profile,) = task.profiles
    registry = discover()
    settings = resolve(registry, profile=profile, overrides=task.overrides)
    output = Path(task.folder) / "output.mp4"
    watched = TimedRegistry(registry, Ledger(), seen)
    with Dubber(profile=profile, overrides=task.overrides, registry=watched) as dubber:
        done = dubber.dub(task.video, task.audio, output, overwrite=True, resume=False)
    return {
        "model": done.model,
        "settings": settings.values(),
        "output": str(output),
        "changed_outside": changed,
        "facts": {"width": done.width, "height": done.height, "fps": done.fps, "frames": done.frames},
    }
