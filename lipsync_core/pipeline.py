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
from lipsync_core.rest import RestingMouths, RestPlan
from lipsync_core.stages import AudioEncoder, Compositor, FaceAligner, LatentDenoiser, Masker, SameStartNoise
from lipsync_core.types import AlignedFaces, AudioFeatures, FrameBatch, GeneratedFaces, MouthMask


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
    """Output frames `start`…`stop` − 1, handled at once: all of one scene with a face, or all passed through.

    generates: whether anything is generated for them; else the mouth rests in all of them.
    anchors: frames for whose pauses a resting mouth is to be generated first.
    """

    start: int
    stop: int
    scene: int | None  # None: passed through
    generates: bool = True
    anchors: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"frames {self.start}–{self.stop - 1}"

    @property
    def pictures(self) -> list[int]:
        """The output frames whose source pictures it takes, in that order."""
        return [*self.anchors, *range(self.start, self.stop)]

    @property
    def runs(self) -> list[int]:
        """How many of `pictures` it takes at once: each anchor alone, then its own frames."""
        return [*(1 for _ in self.anchors), self.stop - self.start]


def dubbed_scenes(timeline: Timeline, analysis: Analysis) -> NDArray[np.int64]:
    """Return each output frame's scene [N], −1 where it shows no face or the new sound has ended."""
    dub = analysis.found[timeline.source_frames] & timeline.dubbed
    scenes: NDArray[np.int64] = np.where(dub, analysis.scene_of[timeline.source_frames], -1)
    return scenes


def chunks(scene: NDArray[np.int64], rest: RestPlan, *, first: int, max_frames: int, segment: int) -> Iterator[Chunk]:
    """Cut the output from frame `first` into runs of at most `max_frames` that cross no scene and no segment.

    scene: [N], −1 where a frame is passed through. The cuts do not depend on `first` as long as it is a multiple of
    `segment`, so a resumed job makes the same chunks; it generates the resting mouth anew that it stopped at.
    """
    kinds = np.stack([scene, rest.weight == 1])
    known = -1  # the latest pause whose resting mouth has been generated
    start = first
    while start < len(scene):
        limit = min(start + max_frames, len(scene), (start // segment + 1) * segment)
        stop = start + 1
        while stop < limit and (kinds[:, stop] == kinds[:, start]).all():
            stop += 1
        new = [pause for pause in sorted(set(rest.pause[start:stop].tolist())) if pause > known]
        known = max([known, *new])
        anchors = tuple(rest.anchors[new].tolist())
        passed = scene[start] < 0
        yield Chunk(start, stop, None if passed else int(scene[start]), not kinds[1, start], anchors)
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
    resting: RestingMouths,
    seed: int,
) -> Iterator[FrameBatch]:
    """Yield the finished frames of each chunk.

    pictures: the source frames in the order of `Chunk.pictures` and the runs of `Chunk.runs`, by `VideoReader.in_runs`.
    A frame without a face, or after the new sound has ended, is passed on as it was decoded.
    """

    def look(chunk: Chunk, frames: FrameBatch) -> tuple[AlignedFaces, MouthMask]:
        assert chunk.scene is not None
        track = analysis.gather(chunk.scene, timeline.source_frames[chunk.start : chunk.stop], chunk.start)
        with stages.blame(StageKind.ALIGNER, str(chunk)):
            faces = stages.aligner.crop(frames, track)
        with stages.blame(StageKind.MASKER, str(chunk)):
            return faces, stages.masker.mask(faces)

    def generate(chunk: Chunk, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures) -> GeneratedFaces:
        denoiser = stages.denoiser
        shape, noise = denoiser.latent_shape, None
        if shape is not None:
            same = isinstance(denoiser, SameStartNoise) and denoiser.same_start_noise
            noise = frame_noise(seed, chunk.start, len(faces.track), shape, same_start=same)
        with stages.blame(StageKind.DENOISER, str(chunk)):
            return denoiser.generate(faces, mask, audio, noise)

    def finish(chunk: Chunk) -> FrameBatch:
        for frame in chunk.anchors:
            anchor = Chunk(frame, frame + 1, chunk.scene)
            faces, mask = look(anchor, take(pictures, frame, 1))
            resting.keep(faces, generate(anchor, faces, mask, resting.features(frame)))
        frames = take(pictures, chunk.start, chunk.stop - chunk.start)
        audio = features.take(chunk.stop - chunk.start)
        if chunk.scene is None:
            return frames
        faces, mask = look(chunk, frames)
        generated = generate(chunk, faces, mask, audio) if chunk.generates else None
        shown = resting.show(faces, mask, generated)
        with stages.blame(StageKind.COMPOSITOR, str(chunk)):
            return stages.compositor.composite(frames, faces, mask, shown)

    for chunk in work:
        yield finish(chunk)  # a function: what it took for a chunk is let go before the next one begins


def take(pictures: Iterator[NDArray[np.uint8]], start: int, count: int) -> FrameBatch:
    """Return the next run of `count` (≥ 1) pictures, as `VideoReader.in_runs` yields it, as one batch from `start`."""
    for _ in range(count):
        pixels = next(pictures)
    return FrameBatch(start, pixels)


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
