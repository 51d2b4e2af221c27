"""What a denoiser may see in `prepare`: the whole source and the whole job, streamed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lipsync_core.analysis import Analysis, batch_size
from lipsync_core.backends import StageKind
from lipsync_core.errors import InputError
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.prefetch import prefetch
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import Timeline
from lipsync_core.memory import tidied
from lipsync_core.pipeline import Stages, take
from lipsync_core.progress import Progress
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, VideoInfo

_log = logging.getLogger(__name__)

_QUEUE = 8
_TIDY_RUNS = 8  # after so many, freed memory goes back to the system


class JobSource:
    """The `SourceClip` of one job. Every method that iterates decodes anew and holds a few frames."""

    def __init__(
        self,
        stages: Stages,
        reader: VideoReader,
        analysis: Analysis,
        timeline: Timeline,
        own_sound: AudioSource | None,
        new_sound: AudioSource | None,
        progress: Progress,
    ) -> None:
        self._stages = stages
        self._reader = reader
        self._analysis = analysis
        self._timeline = timeline
        self._own_sound = own_sound
        self._new_sound = new_sound
        self._progress = progress

    @property
    def video(self) -> VideoInfo:
        """Facts of the source video."""
        return self._reader.info

    @property
    def scenes(self) -> tuple[range, ...]:
        """Source frame indices of each scene, in order."""
        return self._analysis.scenes

    @property
    def source_frames(self) -> NDArray[np.int64]:
        """The source frame of each output frame, [N]."""
        return self._timeline.source_frames

    @property
    def output_fps(self) -> float:
        """Output frames a second, the average where the rate varies."""
        return float(self._timeline.fps)

    def tracks(self) -> Iterator[FaceTrack]:
        """Yield the track of each scene."""
        return iter(self._analysis.tracks)

    def faces(self, frames: NDArray[np.int64] | None = None) -> Iterator[AlignedFaces]:
        """Yield the crops of all frames that have a face, or of those among `frames`, in consecutive runs."""
        size = batch_size(self.video.height, self.video.width)
        wanted = self._analysis.found
        if frames is not None:
            wanted &= np.isin(np.arange(len(wanted)), frames)
        runs = [run for track in self._analysis.tracks for run in _runs(track, wanted, size)]
        if not runs:
            return
        order = np.concatenate([np.arange(run.start, run.start + len(run)) for run in runs])
        self._progress.start("Looking at the source's mouth", len(order))
        pictures = prefetch(self._reader.in_runs(self._analysis.index, order, [len(run) for run in runs]), _QUEUE)
        for run in tidied(runs, _TIDY_RUNS):
            batch = take(pictures, run.start, len(run))
            with self._stages.blame(StageKind.ALIGNER, f"source frames from {run.start}"):
                faces = self._stages.aligner.crop(batch, run)
            yield faces
            self._progress.advance(len(run))

    def audio(self) -> Iterator[AudioFeatures] | None:
        """Yield the features of the source's own sound for every source frame; None where it has none or is silent."""
        if self._own_sound is None or self._own_sound.is_silent():
            return None
        return encode(self._stages, self._own_sound, self._analysis.index.times)

    def target_audio(self) -> Iterator[AudioFeatures]:
        """Yield the features of the new sound for every output frame; none where there is no new sound."""
        if self._new_sound is None:
            return iter(())
        return encode(self._stages, self._new_sound, self._timeline.times)


def own_sound(reader: VideoReader) -> AudioSource | None:
    """Return the sound of the source itself; None where it has none, or none that can be decoded, which is said."""
    if not reader.info.has_audio:
        return None
    try:
        return AudioSource(reader.path)
    except InputError as error:
        _log.warning("the speaker's own sound is not used: %s", error.cause)
        return None


def encode(stages: Stages, sound: AudioSource, times: NDArray[np.float64]) -> Iterator[AudioFeatures]:
    """Yield the features of `sound` at `times` (s)."""
    blocks = sound.blocks(stages.audio.sample_rate)
    with stages.blame(StageKind.AUDIO, sound.path.name):
        yield from stages.audio.encode(blocks, times=times)


def _runs(track: FaceTrack, wanted: NDArray[np.bool_], size: int) -> Iterator[FaceTrack]:
    """Yield the stretches of a track whose source frames are all `wanted`, at most `size` frames long."""
    here = wanted[track.start : track.start + len(track)]
    edges = np.flatnonzero(np.diff(here, prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2).tolist():
        for first in range(start, stop, size):
            yield track[first : min(first + size, stop)]
