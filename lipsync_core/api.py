"""Dubbing from Python: `dub(video, audio, output)`. The command line calls the same function."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2

from lipsync_core.backends import StageKind
from lipsync_core.errors import OutputError
from lipsync_core.job import DubResult, Job
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.mux import check_output
from lipsync_core.media.reader import VideoReader
from lipsync_core.pipeline import Stages
from lipsync_core.progress import Progress, Silent
from lipsync_core.registry import Registry, discover
from lipsync_core.settings import Settings, resolve
from lipsync_core.stages import Closable

__all__ = ["DubResult", "dub"]


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
    began = time.perf_counter()
    video, audio, output = Path(video), Path(audio), Path(output)
    progress = progress or Silent()
    registry = discover()
    settings = resolve(registry, profile=profile, overrides=overrides, flags=flags)
    _check_not_an_input(output, video, audio)
    check_output(output, overwrite=overwrite)
    reader, sound = VideoReader(video), AudioSource(audio)
    # Frames are small work for OpenCV: with its own threads beside the pipeline's it gets slower, not faster.
    cv2.setNumThreads(1)
    with _stages(registry, settings) as stages:
        stages.check_neighbours()
        return Job(settings, stages, reader, sound, output, progress).run(began, resume=resume)


def _check_not_an_input(output: Path, *inputs: Path) -> None:
    if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
        raise OutputError(f"{str(output)!r} is also an input.", "Choose another output.")


@contextlib.contextmanager
def _stages(registry: Registry, settings: Settings) -> Iterator[Stages]:
    """Make the backends of a job, and let go of them afterwards."""
    made: dict[StageKind, Any] = {}
    try:
        for kind, stage in settings.stages.items():
            made[kind] = registry.create(stage.entry, stage.options)
        yield Stages(
            made[StageKind.AUDIO],
            made[StageKind.ALIGNER],
            made[StageKind.MASKER],
            made[StageKind.DENOISER],
            made[StageKind.COMPOSITOR],
            {kind: stage.entry for kind, stage in settings.stages.items()},
        )
    finally:
        for backend in made.values():
            if isinstance(backend, Closable):
                backend.close()
