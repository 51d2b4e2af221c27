"""One stage by itself: its inputs are made by the other stages beforehand and lie in memory, then it alone runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core.analysis import Analysis, batch_size
from lipsync_core.backends import StageKind
from lipsync_core.bench.results import Run
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import Timeline
from lipsync_core.pipeline import Chunk, FeatureStream, Stages, chunks, dubbed_scenes, frame_noise, take
from lipsync_core.progress import Silent
from lipsync_core.quality.metrics import mouth_box
from lipsync_core.rest import RestPlan
from lipsync_core.source import JobSource, encode, own_sound
from lipsync_core.stages import Preparable, SameStartNoise
from lipsync_core.types import AlignedFaces, AudioFeatures, FrameBatch, GeneratedFaces, MouthMask

MOST_FRAMES: Final = 100  # of the work: enough for a steady state
KEPT: Final = 12  # frames, evenly spaced, whose outputs are kept for comparing
_MOST_BYTES: Final = 256 << 20  # of decoded pixels that lie in memory
_TINT: Final = np.array([0.6, 0.9, 0.7], np.float32)  # what compositors are given to put back: the crop, discoloured

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Inputs of one chunk; what a stage before the one measured would make is None."""

    frames: FrameBatch
    faces: AlignedFaces | None
    mask: MouthMask | None
    audio: AudioFeatures | None
    noise: NDArray[np.float32] | None


class StageWork:
    """The work of one stage of a job: `run` does it and times it, `outputs` are those of its latest run."""

    def __init__(
        self,
        kind: StageKind,
        stages: Stages,
        reader: VideoReader,
        sound: AudioSource,
        analysis: Analysis,
        timeline: Timeline,
        seed: int,
    ) -> None:
        """Decode and make the inputs of at most `MOST_FRAMES` frames. Raises what the stages before it raise."""
        self._kind, self._stages, self._reader, self._sound = kind, stages, reader, sound
        self._analysis, self._timeline, self._seed = analysis, timeline, seed
        info = reader.info
        most = max(1, min(MOST_FRAMES, _MOST_BYTES // (info.width * info.height * 3)))
        scenes = dubbed_scenes(timeline, analysis)[:most]
        longest = stages.denoiser.max_frames if kind is StageKind.DENOISER else batch_size(info.height, info.width)
        cut = chunks(scenes, RestPlan.none(len(scenes)), first=0, max_frames=longest, segment=len(scenes))
        self._chunks = [chunk for chunk in cut if chunk.scene is not None]
        self.frames = len(timeline) if kind is StageKind.AUDIO else sum(c.stop - c.start for c in self._chunks)
        self._pieces = list(self._made()) if kind is not StageKind.AUDIO else []
        self.outputs: Arrays = {}

    def facts(self) -> dict[str, float]:
        """Return size in px, rate in Hz and number of frames of the work."""
        info = self._reader.info
        return {"width": info.width, "height": info.height, "fps": float(self._timeline.fps), "frames": self.frames}

    def run(self) -> Run:
        """Do the work once: all of it is timed, the denoiser's `prepare` too, as part of the first output."""
        outputs: list[tuple[int, Any]] = []
        call_ms: list[float] = []
        began, cpu = time.perf_counter(), time.process_time()
        mark = began
        first: float | None = None
        for output, count in self._steps():
            now = time.perf_counter()
            first = first or now
            call_ms.append(1000 * (now - mark) / max(count, 1))
            outputs.append((count, output))
            mark = time.perf_counter()
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        self.outputs = self._kept([output for _, output in outputs])
        spent = {"wall": seconds, "cpu": cpu_s, "calls": float(len(outputs))}
        duration = self.frames / float(self._timeline.fps)
        first_s = (first or began) - began
        return Run(seconds, cpu_s, first_s, self.frames, duration / seconds, {str(self._kind): spent}, call_ms)

    def _made(self) -> Iterator[_Piece]:
        """Make the inputs of each chunk, as `pipeline.render` does."""
        kind, stages, timeline = self._kind, self._stages, self._timeline
        order = timeline.source_frames[np.concatenate([np.arange(c.start, c.stop) for c in self._chunks])]
        runs = [chunk.stop - chunk.start for chunk in self._chunks]
        pictures = self._reader.in_runs(self._analysis.index, order, runs)
        features: FeatureStream | None = None
        if kind is StageKind.DENOISER:
            features = FeatureStream(encode(stages, self._sound, timeline.times), 0)
        done = 0
        for chunk in self._chunks:
            count = chunk.stop - chunk.start
            frames = take(pictures, chunk.start, count)
            audio = noise = faces = mask = None
            if features is not None:
                if chunk.start > done:
                    features.take(chunk.start - done)
                audio = features.take(count)
                done = chunk.stop
                shape = stages.denoiser.latent_shape
                same = isinstance(stages.denoiser, SameStartNoise) and stages.denoiser.same_start_noise
                noise = None if shape is None else frame_noise(self._seed, chunk.start, count, shape, same_start=same)
            if kind is not StageKind.ALIGNER:
                faces = self._cropped(chunk, frames)
                mask = None if kind is StageKind.MASKER else stages.masker.mask(faces)
            yield _Piece(frames, faces, mask, audio, noise)

    def _cropped(self, chunk: Chunk, frames: FrameBatch) -> AlignedFaces:
        assert chunk.scene is not None
        rows = self._timeline.source_frames[chunk.start : chunk.stop]
        return self._stages.aligner.crop(frames, self._analysis.gather(chunk.scene, rows, chunk.start))

    def _steps(self) -> Iterator[tuple[Any, int]]:
        """Yield each output of the stage and how many frames it is for."""
        stages = self._stages
        if self._kind is StageKind.AUDIO:
            blocks = list(self._sound.blocks(stages.audio.sample_rate))
            for batch in stages.audio.encode(blocks, times=self._timeline.times):
                yield batch, len(batch.values)
        elif self._kind is StageKind.ALIGNER:
            yield from self._aligned()
        else:
            if self._kind is StageKind.DENOISER and isinstance(stages.denoiser, Preparable):
                stages.denoiser.prepare(self._source())
            call = _CALLS[self._kind]
            for piece in self._pieces:
                yield call(stages, piece), len(piece.frames.pixels)

    def _aligned(self) -> Iterator[tuple[Any, int]]:
        """Follow the face through the frames as one scene, then cut it out."""
        aligner, at = self._stages.aligner, 0
        batches, start = [], 0
        for piece in self._pieces:
            batches.append(FrameBatch(start, piece.frames.pixels))
            start += len(piece.frames.pixels)
        for track in aligner.track(iter(batches), video=self._reader.info):
            yield track, 0
            while at < len(batches) and batches[at].start + len(batches[at].pixels) <= track.start + len(track):
                batch = batches[at]
                first = batch.start - track.start
                if first < 0:  # one that the tracker handed out in two parts
                    at += 1
                    continue
                rows = track[first : first + len(batch.pixels)]
                if rows.found.all():
                    yield aligner.crop(batch, rows), len(batch.pixels)
                at += 1

    def _source(self) -> JobSource:
        own = own_sound(self._reader)
        whole = (self._stages, self._reader, self._analysis, self._timeline)
        return JobSource(*whole, own, self._sound, Silent())

    def _kept(self, outputs: list[Any]) -> Arrays:
        """Return some frames' outputs as arrays, and in `box` the mouth [k, 4] (x, y, width, height, px) there."""
        if self._kind is StageKind.AUDIO:
            return {"values": np.concatenate([batch.values for batch in outputs])}
        if self._kind is StageKind.ALIGNER:
            tracks = [output for output in outputs if not isinstance(output, AlignedFaces)]
            names = ("frame_to_crop", "landmarks")
            return {name: np.concatenate([getattr(track, name) for track in tracks]) for name in names}
        rows = np.unique(np.linspace(0, self.frames - 1, min(KEPT, self.frames)).round().astype(int))
        kept: list[NDArray[Any]] = []
        boxes: list[tuple[int, ...]] = []
        start = 0
        for output, piece in zip(outputs, self._pieces, strict=True):
            values = _picture(output)
            for row in rows[(rows >= start) & (rows < start + len(values))] - start:
                kept.append(values[row])
                boxes.append(_box(self._kind, piece, int(row)))
            start += len(values)
        return {"values" if self._kind is StageKind.MASKER else "pictures": np.stack(kept), "box": np.array(boxes)}


def _masked(stages: Stages, piece: _Piece) -> Any:
    assert piece.faces is not None
    return stages.masker.mask(piece.faces)


def _generated(stages: Stages, piece: _Piece) -> Any:
    assert piece.faces is not None
    assert piece.mask is not None
    assert piece.audio is not None
    return stages.denoiser.generate(piece.faces, piece.mask, piece.audio, piece.noise)


def _composited(stages: Stages, piece: _Piece) -> Any:
    assert piece.faces is not None
    assert piece.mask is not None
    tinted = GeneratedFaces(piece.faces.pixels.astype(np.float32) / np.float32(255) * _TINT)
    return stages.compositor.composite(piece.frames, piece.faces, piece.mask, tinted)


_CALLS: Final[dict[StageKind, Callable[[Stages, _Piece], Any]]] = {
    StageKind.MASKER: _masked,
    StageKind.DENOISER: _generated,
    StageKind.COMPOSITOR: _composited,
}


def _picture(output: Any) -> NDArray[Any]:
    if isinstance(output, MouthMask):
        return output.generate
    pixels: NDArray[Any] = output.pixels
    return pixels if pixels.dtype == np.uint8 else np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _box(kind: StageKind, piece: _Piece, row: int) -> tuple[int, ...]:
    """Return where the mouth is in the output, no size where it is not known."""
    assert piece.faces is not None
    track, points = piece.faces.track, piece.faces.track.landmarks[row]
    if not np.isfinite(points).all():
        return 0, 0, 0, 0
    if kind is StageKind.COMPOSITOR:
        return mouth_box(points, piece.frames.pixels.shape[2], piece.frames.pixels.shape[1])
    matrix, side = track.frame_to_crop[row], track.crop_size
    return mouth_box(points @ matrix[:, :2].T + matrix[:, 2], side, side)
