"""Adapting a model to the speaker of one video, and keeping what came of it.

What comes of it is a model folder like any other: `lipsync run --model FOLDER` dubs with it, `lipsync export FOLDER`
makes its ONNX graphs. `adapted` does it at most once for a video, a model and settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2

from lipsync_core import __version__
from lipsync_core.api import close_stages, make_stages
from lipsync_core.backends import StageKind
from lipsync_core.cache import content_hash
from lipsync_core.errors import BackendError, InputError, OutputError, SettingsError
from lipsync_core.job import analysed
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import build_timeline
from lipsync_core.memory import peak_rss
from lipsync_core.models import adapted as kept
from lipsync_core.models.folder import MODEL_FILE, file_mark
from lipsync_core.models.known import open_model
from lipsync_core.pipeline import Stages
from lipsync_core.progress import Progress, Silent
from lipsync_core.registry import Registry, discover
from lipsync_core.settings import MODEL_OPTION, Settings, resolve
from lipsync_core.source import JobSource, own_sound
from lipsync_core.stages import Adaptable

DENOISER: Final = "latentsync-torch"  # adapts for a backend that runs the same model folders but cannot learn
STEPS: Final = 125
Report = Callable[[int, float], None]

_DENOISER_KEYS: Final = (f"{StageKind.DENOISER}.options.", f"{StageKind.DENOISER}.backend")
_LEARNT_FROM: Final = tuple(f"{kind}." for kind in (StageKind.AUDIO, StageKind.ALIGNER, StageKind.MASKER))


@dataclass(frozen=True, slots=True)
class AdaptResult:
    """What came of adapting: `folder` is the new model's; PSNR in dB on frames that were not learnt from.

    seconds: wall time. peak_rss_bytes: of this process so far; None where the system does not tell.
    """

    folder: Path
    model: str
    psnr_before: float
    psnr_after: float
    best_step: int
    seconds: float
    peak_rss_bytes: int | None


def adapt(
    video: str | Path,
    folder: str | Path,
    *,
    profile: str | Path | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
    report: Report = lambda step, psnr: None,
) -> AdaptResult:
    """Fit the model of a profile to the speaker of `video` and write it as a new model folder.

    video: shows the speaker and has their own voice; its first forty frames with a face are the least. profile,
    overrides, flags: as for `dub`; of the denoiser only the model counts. steps: more take longer and fit closer.
    seed: the same one gives the same model. report: called with a step and the mouth's PSNR, dB, on frames held back.

    Raises a `LipsyncError`: `OutputError` where `folder` holds something, `InputError` where the video shows or says
    too little, `BackendError` without torch. The folder is there whole or not at all.
    """
    began = time.perf_counter()
    video, folder = Path(video), Path(folder)
    _check_folder(folder)
    reader = VideoReader(video)
    cv2.setNumThreads(1)  # as in `dub`
    settings, stages = make_stages(discover(), _settings(profile, overrides, flags))
    try:
        denoiser = stages.denoiser
        if not isinstance(denoiser, Adaptable):
            name = stages.entries[StageKind.DENOISER].spec.name
            raise BackendError(f"The denoiser {name} cannot adapt.", "Update the plugin it comes from.")
        listener = progress or Silent()
        source = _source(settings, stages, reader, listener)
        with _whole(folder) as temporary, stages.blame(StageKind.DENOISER, "adapting to the speaker"):
            fit = denoiser.adapt(
                source, stages.masker, temporary, steps=steps, seed=seed, progress=listener, report=report
            )
    finally:
        close_stages(stages)
    return AdaptResult(
        folder=folder,
        model=open_model(str(folder)).config.name,
        psnr_before=fit.before,
        psnr_after=fit.after,
        best_step=fit.step,
        seconds=time.perf_counter() - began,
        peak_rss_bytes=peak_rss(),
    )


def adapted(
    video: str | Path,
    *,
    profile: str | Path | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    report: Report = lambda step, psnr: None,
) -> list[str]:
    """Return overrides for `dub` that put the profile's model, adapted to `video`, in its place.

    It is from the cache, or made now and kept there. Arguments and errors are those of `adapt`.
    """
    overrides = list(overrides)
    settings = _settings(profile, overrides, flags)
    folder = kept.folder() / _key(Path(video), settings)
    if not (folder / MODEL_FILE).is_file():
        adapt(video, folder, profile=profile, overrides=overrides, flags=flags, progress=progress, report=report)
    return [f"job.{MODEL_OPTION}={folder}", f"{StageKind.DENOISER}.options.{MODEL_OPTION}={folder}"]


def _settings(profile: str | Path | None, overrides: Iterable[str], flags: Mapping[str, Any] | None) -> Settings:
    """Return the settings of a job, its denoiser the one that adapts; what was set for its own is for dubbing."""
    registry, overrides = discover(), list(overrides)
    wanted = resolve(registry, profile=profile, overrides=overrides, flags=flags)
    model, learner = _model(wanted), _learner(registry, wanted)
    others = [text for text in overrides if not text.strip().startswith(_DENOISER_KEYS)]
    # Not as overrides, which are read as TOML: a folder may be named 2024.
    chosen = dict(flags or {}) | {
        f"{StageKind.DENOISER}.backend": learner,
        f"{StageKind.DENOISER}.options.{MODEL_OPTION}": model,
        f"job.{MODEL_OPTION}": model,
    }
    return resolve(registry, profile=profile, overrides=others, flags=chosen)


def _learner(registry: Registry, settings: Settings) -> str:
    """Return the denoiser that learns: the profile's own where its class can (`stages.Adaptable`), else `DENOISER`."""
    own = settings.stages[StageKind.DENOISER].entry
    with suppress(BackendError):  # what it lacks is told of once a job runs it
        if hasattr(registry.factory(own), "adapt"):
            return own.spec.name
    return DENOISER


def _model(settings: Settings) -> str:
    """Return the model a profile's denoiser runs; raises `SettingsError` where it runs none."""
    options = settings.stages[StageKind.DENOISER].options
    model = getattr(options, MODEL_OPTION, None)
    if not isinstance(model, str):
        raise SettingsError(
            f"The profile {settings.profile} has no model that could be adapted.",
            "Choose one that has, for example --profile torch or onnx.",
        )
    return model


def _source(settings: Settings, stages: Stages, reader: VideoReader, progress: Progress) -> JobSource:
    """Return the video as the source of a job that has no new sound."""
    if reader.is_still:
        raise InputError(f"{reader.path.name} is a still image.", "Adapt to a video of the speaker.")
    analysis, _ = analysed(settings, stages, reader, content_hash(reader.path), progress)
    # Any sound will do: of the timeline a source without new sound shows its own frames only.
    timeline = build_timeline(analysis.index, reader.info.fps, audio_duration=1.0, length="video")
    return JobSource(stages, reader, analysis, timeline, own_sound(reader), None, progress)


def _key(video: Path, settings: Settings) -> str:
    """Return the cache key: what the weights depend on."""
    model = open_model(_model(settings))
    files = {name: file_mark(model.path(name)) for name in model.config.weights}
    facts = [
        __version__,
        content_hash(VideoReader(video).path),
        model.config.model_dump(mode="json"),
        files,
        {key: value for key, value in settings.values().items() if key.startswith(_LEARNT_FROM)},
        STEPS,
    ]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _check_folder(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OutputError(f"{str(folder)!r} exists already.", "Choose a new folder, or delete this one first.")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` if all goes well, and is deleted otherwise."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Within a folder that is there: it may be the current one or another disk's, which none can take the place of.
        temporary = Path(tempfile.mkdtemp(dir=folder if folder.is_dir() else folder.parent, prefix=".lipsync-adapt-"))
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}.", "Choose another one.") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        try:
            if folder.is_dir():
                # What makes it a model folder comes last.
                for part in sorted(temporary.iterdir(), key=lambda part: part.name == MODEL_FILE):
                    part.rename(folder / part.name)
            else:
                temporary.replace(folder)
        except OSError as error:
            raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}.", "Choose another one.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
