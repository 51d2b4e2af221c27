"""Dubbing from Python: `dub(video, audio, output)`, or a `Dubber` for many jobs with one set of backends.

The command line calls the same function.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2

from lipsync_core.backends import StageKind
from lipsync_core.errors import OutputError
from lipsync_core.job import DubResult, Job
from lipsync_core.job_settings import signing
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.mux import check_output
from lipsync_core.media.reader import VideoReader
from lipsync_core.pipeline import Stages
from lipsync_core.progress import Progress, Silent
from lipsync_core.ranges import FrameRange, Treatment
from lipsync_core.registry import Registry, discover
from lipsync_core.settings import RESOLUTION_OPTION, ZOOM_OPTION, Settings, StageSettings, resolve
from lipsync_core.stages import Closable, LatentDenoiser, ZoomedCrops

__all__ = ["DubResult", "Dubber", "FrameRange", "Treatment", "dub"]


def dub(
    video: str | Path,
    audio: str | Path,
    output: str | Path,
    *,
    profile: str | Path | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
) -> DubResult:
    """Write `output`: the speaker in `video` says `audio`.

    video: any video or still image FFmpeg decodes. audio: any file with a sound track, a video too.
    output: .mp4, .mov, .mkv or .webm. profile: a name or a TOML file; None follows `lipsync.toml` and the environment.
    overrides: "stage.options.key=value" strings, as `--set`. flags: dotted keys with values, as the other flags set
    them (`{"job.crf": 20}`). overwrite: replace an existing output. resume: go on where an interrupted job with the
    same inputs and settings stopped. progress: told about each pass.

    Raises a `LipsyncError`: `SettingsError`, `InputError` (`NoFaceError`), `OutputError`, `WeightsError` or
    `BackendError`. Nothing half written carries the output's name.
    """
    with Dubber(profile=profile, overrides=overrides, flags=flags) as dubber:
        return dubber.dub(video, audio, output, overwrite=overwrite, resume=resume, progress=progress)


class Dubber:
    """One set of backends for many jobs: models are read at the first and stay until `close`.

    A context manager. Any thread may use it; its jobs are done one after the other, since backends hold what they know
    of a video. Where jobs are to run beside each other, make one for each thread: the models are in memory as often.
    """

    def __init__(
        self,
        *,
        profile: str | Path | None = None,
        overrides: Iterable[str] = (),
        flags: Mapping[str, Any] | None = None,
        registry: Registry | None = None,
    ) -> None:
        """Settle the settings, as `dub` takes them; raises `SettingsError` or `BackendError`.

        registry: where the backends come from; None is what the installed plugins offer.
        """
        self._registry = registry or discover()
        self._settings = resolve(self._registry, profile=profile, overrides=overrides, flags=flags)
        self._stages: Stages | None = None
        self._one_job = threading.Lock()

    def dub(
        self,
        video: str | Path,
        audio: str | Path,
        output: str | Path,
        *,
        overwrite: bool = False,
        resume: bool = True,
        progress: Progress | None = None,
    ) -> DubResult:
        """Do one job, after those of other threads; arguments and errors are those of the function `dub`."""
        with self._one_job:
            return self._dub(Path(video), Path(audio), Path(output), overwrite, resume, progress or Silent())

    def _dub(
        self, video: Path, audio: Path, output: Path, overwrite: bool, resume: bool, progress: Progress
    ) -> DubResult:
        began = time.perf_counter()
        _check_not_an_input(output, video, audio)
        check_output(output, overwrite=overwrite)
        credentials = signing(self._settings.job)
        if credentials is not None:
            credentials.check(output)
        reader, sound = VideoReader(video), AudioSource(audio)
        # Frames are small work for OpenCV: with its own threads beside the pipeline's it gets slower, not faster.
        cv2.setNumThreads(1)
        if self._stages is None:  # only now: a wrong path is to be known before a model is read
            self._settings, self._stages = make_stages(self._registry, self._settings)
        job = Job(self._settings, self._stages, reader, sound, output, progress)
        return job.run(began, resume=resume)

    def close(self) -> None:
        """Let go of the backends, after a job that is running; a later job makes them anew."""
        with self._one_job:
            stages, self._stages = self._stages, None
            if stages is not None:
                close_stages(stages)

    def __enter__(self) -> Dubber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_not_an_input(output: Path, *inputs: Path) -> None:
    def is_output(path: Path) -> bool:
        try:
            return output.samefile(path)
        except OSError:  # one of them is not there, or its name is none a file can have
            return False

    if any(map(is_output, inputs)):
        raise OutputError(f"{str(output)!r} is also an input.", "Choose another output.")


def make_stages(registry: Registry, settings: Settings) -> tuple[Settings, Stages]:
    """Make the backends of a job; returns them and the settings with what one stage took over from another.

    Raises `BackendError` where one cannot be made or two do not fit, or what a backend raises of its own.
    """
    made: dict[StageKind, Any] = {}
    stages = dict(settings.stages)
    try:
        # The denoiser first: the aligner may follow the size of its crops.
        for kind in sorted(stages, key=lambda kind: kind is not StageKind.DENOISER):
            if kind is StageKind.ALIGNER:
                stages[kind] = _following(stages[kind], made[StageKind.DENOISER])
            made[kind] = registry.create(stages[kind].entry, stages[kind].options)
        whole = Stages(
            made[StageKind.AUDIO],
            made[StageKind.ALIGNER],
            made[StageKind.MASKER],
            made[StageKind.DENOISER],
            made[StageKind.COMPOSITOR],
            {kind: stage.entry for kind, stage in stages.items()},
        )
        whole.check_neighbours()
    except BaseException:
        _close(*made.values())
        raise
    return dataclasses.replace(settings, stages=stages), whole


def _following(aligner: StageSettings, denoiser: LatentDenoiser) -> StageSettings:
    """Return the aligner's settings with what it leaves open as the denoiser wants it."""
    zoom = denoiser.crop_zoom if isinstance(denoiser, ZoomedCrops) else None
    wanted = {RESOLUTION_OPTION: denoiser.crop_size, ZOOM_OPTION: zoom}
    options = aligner.options
    open_ones = {name: value for name, value in wanted.items() if getattr(options, name, value) is None and value}
    if not open_ones:
        return aligner
    return dataclasses.replace(aligner, options=options.model_copy(update=open_ones))


def close_stages(stages: Stages) -> None:
    """Let go of the backends of a job."""
    _close(stages.audio, stages.aligner, stages.masker, stages.denoiser, stages.compositor)


def _close(*backends: object) -> None:
    for backend in backends:
        if isinstance(backend, Closable):
            backend.close()
