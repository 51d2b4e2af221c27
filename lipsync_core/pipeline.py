"""The job as it runs: five stages, one loop.

`render` is the loop. Read it first; everything it calls on `stages` is a backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync_core.analysis import Analysis
from lipsync_core.backends import StageKind
from lipsync_core.errors import BackendError, LipsyncError
from lipsync_core.media.timeline import Timeline
from lipsync_core.registry import Entry, describe
from lipsync_core.stages import AudioEncoder, Compositor, FaceAligner, LatentDenoiser, Masker, SameStartNoise
from lipsync_core.types import AudioFeatures, FrameBatch


@dataclass(frozen=True, slots=True)
class Stages:
    """One backend for each stage, and the registry entries they were made from."""

    audio: AudioEncoder
    aligner: FaceAligner
    masker: Masker
    denoiser: LatentDenoiser
    compositor: Compositor
    entries: Mapping[StageKind, Entry]

    def check_neighbours(self) -> None:
        """Raise `BackendError` naming both backends where one does not take what the other gives."""
        gives, takes = tuple(self.audio.feature_shape), tuple(self.denoiser.feature_shape)
        if gives != takes:
            self._misfit(StageKind.AUDIO, f"gives features of shape {gives}", f"takes {takes}")
        crop, wanted = self.aligner.crop_size, self.denoiser.crop_size
        if wanted is not None and crop != wanted:
            given = "crops whose size follows the video" if crop is None else f"crops of {crop} px"
            self._misfit(StageKind.ALIGNER, f"gives {given}", f"takes {wanted} px")

    def _misfit(self, kind: StageKind, gives: str, takes: str) -> None:
        giver, taker = self.entries[kind].spec.name, self.entries[StageKind.DENOISER].spec.name
        raise BackendError(
            f"The {kind} backend {giver} {gives}, but the denoiser {taker} {takes}.",
            f"Change the options of one of them or select another {kind} backend.",
        )

    @contextmanager
    def blame(self, kind: StageKind, where: str) -> Iterator[None]:
        """Turn whatever the backend of `kind` raises inside into a `BackendError` that names it and `where`."""
        try:
            yield
        except LipsyncError:
            raise
        except Exception as error:
            entry = self.entries[kind]
            raise BackendError(
                f"The {kind} backend {entry.spec.name} ({entry.origin}) failed at {where}: {describe(error)}.",
                "Finished parts are kept: the same command goes on from there once it is fixed "
                "(LIPSYNC_DEBUG=1 shows the traceback).",
            ) from error


@dataclass(frozen=True, slots=True)
class Chunk:
    """Output frames `start`…`stop` − 1, handled at once: all of one scene with a face, or all passed through."""

    start: int
    stop: int
    scene: int | None  # None: passed through

    def __str__(self) -> str:
        return f"frames {self.start}–{self.stop - 1}"


def chunks(timeline: Timeline, analysis: Analysis, *, first: int, max_frames: int, segment: int) -> Iterator[Chunk]:
    """Cut the output from frame `first` into runs of at most `max_frames` that cross no scene and no segment.

    The cuts do not depend on `first` as long as it is a multiple of `segment`, so a resumed job makes the same chunks.
    """
    dub = analysis.found[timeline.source_frames] & timeline.dubbed
    scene = np.where(dub, analysis.scene_of[timeline.source_frames], -1)
    start = first
    while start < len(scene):
        limit = min(start + max_frames, len(scene), (start // segment + 1) * segment)
        stop = start + 1
        while stop < limit and scene[stop] == scene[start]:
            stop += 1
        yield Chunk(start, stop, int(scene[start]) if scene[start] >= 0 else None)
        start = stop


def frame_noise(
    seed: int, start: int, count: int, shape: tuple[int, ...], *, same_start: bool = False
) -> NDArray[np.float32]:
    """Return standard normal noise [count, *shape]; each frame's depends on the seed and its index alone.

    same_start: the first of each frame's noises, [:, 0], is frame 0's in all of them (`stages.SameStartNoise`).
    """
    noise = np.empty((count, *shape), np.float32)
    for row in range(count):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, start + row]))
        noise[row] = generator.standard_normal(shape, dtype=np.float32)
    if same_start:
        noise[:, 0] = frame_noise(seed, 0, 1, shape)[0, 0]
    return noise


def render(
    stages: Stages,
    work: Iterable[Chunk],
    timeline: Timeline,
    analysis: Analysis,
    pictures: Iterator[NDArray[np.uint8]],
    features: FeatureStream,
    seed: int,
) -> Iterator[FrameBatch]:
    """Yield the finished frames of each chunk. `pictures` are the source frames in output order.

    A frame without a face, or after the new sound has ended, is passed on as it was decoded.
    """
    for chunk in work:
        count = chunk.stop - chunk.start
        frames = FrameBatch(chunk.start, np.stack([next(pictures) for _ in range(count)]))
        audio = features.take(count)
        if chunk.scene is None:
            yield frames
            continue
        track = analysis.gather(chunk.scene, timeline.source_frames[chunk.start : chunk.stop], chunk.start)
        shape = stages.denoiser.latent_shape
        same = isinstance(stages.denoiser, SameStartNoise) and stages.denoiser.same_start_noise
        noise = None if shape is None else frame_noise(seed, chunk.start, count, shape, same_start=same)
        with stages.blame(StageKind.ALIGNER, str(chunk)):
            faces = stages.aligner.crop(frames, track)
        with stages.blame(StageKind.MASKER, str(chunk)):
            mask = stages.masker.mask(faces)
        with stages.blame(StageKind.DENOISER, str(chunk)):
            generated = stages.denoiser.generate(faces, mask, audio, noise)
        with stages.blame(StageKind.COMPOSITOR, str(chunk)):
            finished = stages.compositor.composite(frames, faces, mask, generated)
        yield finished


class FeatureStream:
    """Audio features of consecutive output frames, handed out in the sizes the loop asks for."""

    def __init__(self, batches: Iterator[AudioFeatures], start: int) -> None:
        self._batches = batches
        self._start = start
        self._held: NDArray[np.float32] | None = None

    def take(self, count: int) -> AudioFeatures:
        """Return the features of the next `count` frames; raises `BackendError` where the encoder gave too few."""
        held = [] if self._held is None else [self._held]
        while sum(map(len, held)) < count:
            batch = next(self._batches, None)
            if batch is None:
                raise BackendError(
                    f"The audio encoder gave features for {sum(map(len, held))} of {count} frames from {self._start}.",
                    "Its `encode` must yield features for every time it is given.",
                )
            held.append(batch.values)
        values = np.concatenate(held) if len(held) > 1 else held[0]
        taken = AudioFeatures(self._start, np.ascontiguousarray(values[:count]))
        self._held = values[count:]
        self._start += count
        return taken
