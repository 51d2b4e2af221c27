"""What a model is adapted to: frames of the source, what was heard in them and what the mouth did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.errors import InputError
from lipsync_core.models.folder import ModelConfig, MouthShapePart
from lipsync_core.stages import Masker, SourceClip
from lipsync_core.types import AudioFeatures, FaceTrack
from lipsync_denoiser import mouth_shape

MOST_FRAMES: Final = 480  # held in memory; twenty seconds show a speaker's mouth well enough
FEWEST_FRAMES: Final = 40
HELD_BACK: Final = 0.15  # share of the frames, the last ones, that are measured on and never learnt from
REFERENCE_GAP: Final = 5  # frames from target to reference; nearer ones would give the mouth away
SHAPES_PER_SECOND: Final = 25.0  # whatever the video's rate, as the model was trained
# What 1 is in each number of a measured shape, in widths of LatentSync's crop: pooled slopes of this project's own
# landmarks on the shapes `mini` was trained with (nine clips of seven training speakers; r .95–.98, upper lip .76).
SHAPE_UNITS: Final = np.array([0.0223, 0.0217, 0.0253, 0.0249, 0.0049, 0.0194, 0.0193, 0.0191])
_LARGEST: Final = 4.0  # |number| of a shape; beyond it is a slip of the landmarks
_BOX_MARGIN: Final = 0.15  # around the lips, in their box's sides
_LOW, _HIGH = 2.0, 98.0  # percentiles


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames of the source, ascending, in runs of consecutive ones.

    frames: int64 [n], source index. pixels: uint8 [n, S, S, 3]. keep: float32 [S, S], 1 where the source stays.
    features: float32 [n, tokens, dim]. measured: they are the mouth's true shapes, as a perfect encoder would hear
    them, and otherwise what was heard in the source's own sound. Fitted to an imperfect encoder's shapes, a model
    learns to move the mouth less.
    mouth: rows and columns of the crop that the lips move in.
    held: the first row that is held back. gap: rows before it that are used for nothing, being its neighbours.
    """

    frames: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    keep: NDArray[np.float32]
    features: NDArray[np.float32]
    measured: bool
    mouth: tuple[slice, slice]
    held: int

    @property
    def learnt(self) -> NDArray[np.int64]:
        """The rows that are learnt from."""
        near = self.frames[self.held] - REFERENCE_GAP
        return np.flatnonzero(self.frames <= near)

    @property
    def unseen(self) -> NDArray[np.int64]:
        """The rows held back."""
        return np.arange(self.held, len(self.frames))


def gather(source: SourceClip, masker: Masker, config: ModelConfig) -> Footage:
    """Take what the model needs of a source, at most `MOST_FRAMES` in runs of a chunk's length, evenly chosen.

    Raises `InputError` where too few frames show a face, or the source is silent and shapes are not what is heard.
    """
    tracks = list(source.tracks())
    frames = choose(tracks, MOST_FRAMES, config.frames)
    if len(frames) < FEWEST_FRAMES:
        raise InputError(
            f"Only {len(frames)} frames show a face, and adapting needs {FEWEST_FRAMES}.",
            "Use a longer video of the speaker, or the model as it is.",
        )
    features = _measured(source, tracks, frames, config)
    measured = features is not None
    if features is None:
        batches = source.audio()
        if batches is None:
            raise InputError(
                "The video has no sound of its own, or is silent, and this model learns from sound.",
                "Adapt to a video in which the speaker is heard.",
            )
        features = _pick(batches, frames)
    crops = list(source.faces(frames))
    keep = 1 - masker.mask(crops[0]).generate[0]
    pixels = np.concatenate([faces.pixels for faces in crops])
    lips = np.concatenate([crop_points(faces.track)[:, lm.LIPS] for faces in crops])
    held = len(frames) - max(1, round(HELD_BACK * len(frames)))
    return Footage(frames, pixels, keep, features, measured, _box(lips, keep.shape[0]), held)


def _measured(
    source: SourceClip, tracks: list[FaceTrack], frames: NDArray[np.int64], config: ModelConfig
) -> NDArray[np.float32] | None:
    """Return the measured shapes of `frames`; None where the model takes none, or an aligner leaves landmarks out."""
    if not isinstance(config.audio, MouthShapePart) or config.audio.numbers != mouth_shape.COUNT:
        return None
    values = tokens_around(tracks, frames, float(source.video.fps), config.audio.reach, config.zoom)
    return values if np.isfinite(values).all() else None


def choose(tracks: Iterable[FaceTrack], most: int, length: int) -> NDArray[np.int64]:
    """Return source frames with a face, ascending: runs of up to `length` consecutive ones, evenly spread."""
    runs = []
    for track in tracks:
        edges = np.flatnonzero(np.diff(track.found, prepend=False, append=False)) + track.start
        for start, stop in edges.reshape(-1, 2).tolist():
            runs += [np.arange(first, min(first + length, stop)) for first in range(start, stop, length)]
    wanted = max(1, most // length)
    if len(runs) > wanted:
        runs = [runs[k] for k in np.linspace(0, len(runs) - 1, wanted).round().astype(int)]
    return np.concatenate(runs) if runs else np.zeros(0, np.int64)


def crop_points(track: FaceTrack) -> NDArray[np.float64]:
    """Return the landmarks [n, 68, 2] in crop px."""
    matrix = track.frame_to_crop
    points: NDArray[np.float64] = track.landmarks.astype(np.float64) @ matrix[:, :, :2].transpose(0, 2, 1)
    return points + matrix[:, None, :, 2]


def tokens_around(
    tracks: Iterable[FaceTrack], frames: NDArray[np.int64], fps: float, reach: int, zoom: float
) -> NDArray[np.float32]:
    """Return measured shapes as the encoder would give them, float32 [n, tokens, tokens · 8], of `frames`.

    Each number is relative to the clip's median. Token k has the shape k − reach steps of 1/25 s away in columns
    8k…8k + 7; at the ends of a scene the nearest frame's stands in.
    """
    known = [(track.start + np.flatnonzero(track.found), _measure(track, zoom)) for track in tracks]
    known = [(index, shapes) for index, shapes in known if len(index)]
    middle = np.median(np.concatenate([shapes for _, shapes in known]), axis=0)
    steps = np.arange(-reach, reach + 1)
    values = np.zeros((len(frames), len(steps), len(steps), mouth_shape.COUNT), np.float32)
    for index, shapes in known:
        rows = np.flatnonzero((frames >= index[0]) & (frames <= index[-1]))
        numbers = np.clip((shapes - middle) / SHAPE_UNITS, -_LARGEST, _LARGEST)
        for place, step in enumerate(steps):
            at = frames[rows] + step * fps / SHAPES_PER_SECOND
            for k in range(mouth_shape.COUNT):
                values[rows, place, place, k] = np.interp(at, index, numbers[:, k])
    return values.reshape(len(frames), len(steps), -1)


def _measure(track: FaceTrack, zoom: float) -> NDArray[np.float64]:
    points = crop_points(track)[track.found]
    shapes: NDArray[np.float64] = mouth_shape.measure(points / (track.crop_size * zoom))
    return shapes


def _pick(batches: Iterable[AudioFeatures], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the features of `frames`."""
    picked: list[NDArray[np.float32]] = []
    for batch in batches:
        first, last = np.searchsorted(frames, (batch.start, batch.start + len(batch.values)))
        picked.append(batch.values[frames[first:last] - batch.start])
    return np.concatenate(picked)


def _box(lips: NDArray[np.float64], side: int) -> tuple[slice, slice]:
    """Return the rows and columns of a crop that lips [n, 20, 2] move in."""
    low, high = np.percentile(lips.reshape(-1, 2), [_LOW, _HIGH], axis=0)
    margin = _BOX_MARGIN * (high - low)
    first = np.clip(np.floor(low - margin), 0, side - 2).astype(int)
    last = np.clip(np.ceil(high + margin), first + 1, side).astype(int)
    return slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))
