"""Pass 1: decode once, follow the face, find the scenes. The result is a few hundred bytes a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import BackendError
from lipsync_core.media.index import FrameIndex
from lipsync_core.media.prefetch import prefetch
from lipsync_core.media.reader import VideoReader
from lipsync_core.memory import tidied
from lipsync_core.progress import Progress
from lipsync_core.scenes import split_scenes
from lipsync_core.stages import FaceAligner
from lipsync_core.types import FaceTrack, FrameBatch

_BATCH_BYTES = 24_000_000  # of decoded pixels in flight per step; a handful of 1080p frames
_QUEUE = 1  # batches waiting for the tracker; a second took 20 MB more of 720p
_TIDY_BATCHES = 8  # after so many, freed memory goes back to the system


@dataclass(frozen=True, slots=True)
class Analysis:
    """What pass 1 learns: the timestamps, and one track for each scene, together covering all frames."""

    index: FrameIndex
    tracks: tuple[FaceTrack, ...]

    @property
    def scenes(self) -> tuple[range, ...]:
        """Source frame indices of each scene."""
        return tuple(range(track.start, track.start + len(track)) for track in self.tracks)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether each source frame has a face, [n]."""
        return np.concatenate([track.found for track in self.tracks])

    @property
    def scene_of(self) -> NDArray[np.int64]:
        """The number of each source frame's scene, [n]."""
        return np.repeat(np.arange(len(self.tracks)), [len(track) for track in self.tracks])

    def gather(self, scene: int, source_frames: NDArray[np.int64], start: int) -> FaceTrack:
        """Return the track rows of `source_frames` (all in `scene`), numbered from output frame `start`."""
        track = self.tracks[scene]
        rows = source_frames - track.start
        return FaceTrack(start, track.frame_to_crop[rows], track.found[rows], track.landmarks[rows], track.crop_size)


def batch_size(height: int, width: int) -> int:
    """Return how many frames of that size to handle at once."""
    return max(1, min(16, _BATCH_BYTES // (height * width * 3)))


def analyse(reader: VideoReader, aligner: FaceAligner, progress: Progress) -> Analysis:
    """Decode the whole video once and track its face. Holds a few batches of frames at a time."""
    info = reader.info
    batches = reader.batches(batch_size(info.height, info.width))

    def decoded() -> Iterator[FrameBatch]:
        for batch, _, _ in tidied(prefetch(batches, _QUEUE), _TIDY_BATCHES):
            yield batch
            progress.advance(len(batch.pixels))

    progress.start("Analysing faces", info.frame_count)
    tracks: list[FaceTrack] = []
    for scene in split_scenes(decoded()):
        first = sum(map(len, tracks))
        tracks.append(join(list(aligner.track(scene, video=info)), first))
    index = batches.index()
    if sum(map(len, tracks)) != len(index):
        raise BackendError(
            f"The aligner returned {sum(map(len, tracks))} frames of {len(index)}.",
            "Its `track` must yield every frame once, in order.",
        )
    return Analysis(index, tuple(tracks))


def join(pieces: list[FaceTrack], start: int) -> FaceTrack:
    """Return consecutive pieces of one scene's track as one; raises `BackendError` where they are not consecutive."""
    expected = start
    for piece in pieces:
        if piece.start != expected or piece.crop_size != pieces[0].crop_size:
            raise BackendError(
                f"The aligner returned frames from {piece.start} with crops of {piece.crop_size} px "
                f"where {expected} and {pieces[0].crop_size} px were due.",
                "Its `track` must yield every frame once, in order, with one crop size for a scene.",
            )
        expected += len(piece)
    if len(pieces) == 1:  # most aligners' way; an hour's landmarks take 49 MB
        return pieces[0]
    return FaceTrack(
        start,
        np.concatenate([p.frame_to_crop for p in pieces]),
        np.concatenate([p.found for p in pieces]),
        np.concatenate([p.landmarks for p in pieces]),
        pieces[0].crop_size,
    )
