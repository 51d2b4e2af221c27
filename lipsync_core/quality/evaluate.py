"""What `lipsync eval` measures: any video, of whatever tool, against others that show what it should be.

Three questions, each asked where its video is given: how far is the output from another backend's
(`against_reference`), what became of the source's picture (`against_source`), and does the mouth do what the mouth of
the one who said it did (`against_truth`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core.analysis import Analysis, analyse
from lipsync_core.backends import StageKind
from lipsync_core.cache import analysis_key, cached, content_hash
from lipsync_core.errors import InputError, NoFaceError
from lipsync_core.media.prefetch import prefetch
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import build_timeline
from lipsync_core.progress import Progress, Silent
from lipsync_core.quality import metrics, pixels
from lipsync_core.registry import Registry, discover

ALIGNER: Final = "facemesh-opencv"  # finds the faces that are measured, in every video alike
_QUEUE: Final = 8
_FEWEST: Final = 10  # frames with a face from which a correlation is told

Pictures = Iterator[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Video:
    """A video to measure, and its faces: landmarks float32 [n, 68, 2] px, NaN where there is none."""

    path: Path
    reader: VideoReader
    analysis: Analysis

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """See the class."""
        points = np.concatenate([track.landmarks for track in self.analysis.tracks])
        return np.where(self.analysis.found[:, None, None], points, np.float32(np.nan))

    def in_order(self, order: NDArray[np.int64]) -> Pictures:
        """Yield the frames of these indices, RGB [H, W, 3]."""
        return prefetch(self.reader.in_order(self.analysis.index, order), _QUEUE)


def look_at(path: Path, registry: Registry | None = None, progress: Progress | None = None) -> Video:
    """Open a video and find its faces, from the analysis cache where it was seen before.

    Raises `InputError` where it cannot be read, `NoFaceError` where it shows no face, `BackendError` where the aligner
    is missing.
    """
    registry = registry or discover()
    entry = registry.find(StageKind.ALIGNER, ALIGNER)
    options = registry.options_model(entry)()
    aligner = registry.create(entry, options)
    reader = VideoReader(path)
    version = f"{entry.origin.version} {getattr(aligner, 'version', '')}"  # as a job's own analysis is kept
    key = analysis_key(content_hash(path), ALIGNER, version, options.model_dump(mode="json"))
    analysis, _ = cached(key, lambda: analyse(reader, aligner, progress or Silent()))
    if not analysis.found.any():
        raise NoFaceError(f"No frame of {path.name} shows a face.", "Give a video in which the speaker is seen.")
    return Video(path, reader, analysis)


def against_reference(output: Video, reference: Video) -> dict[str, float]:
    """Return how far two dubs of one job are apart, over the output's frames that both have.

    max, mean: of the absolute difference, 0…255. psnr: dB. ssim: Wang et al. 2004, on luma. Each of the whole picture
    and, `mouth_…`, of the box around the reference's lips. Raises `InputError` where their sizes differ.
    """
    _same_size(output, reference)
    whole, mouth = pixels.Difference(), pixels.Difference()
    mine, theirs = _same_moments(output, reference)
    landmarks = reference.landmarks[theirs]
    for index, (shown, wanted) in enumerate(zip(output.in_order(mine), reference.in_order(theirs), strict=True)):
        whole.add(shown, wanted)
        box = _mouth(landmarks[index], shown)
        if box is not None:
            mouth.add(_cut(shown, box), _cut(wanted, box))
    return whole.figures("") | mouth.figures("mouth_")


def against_source(output: Video, source: Video, *, extend: Any = "pingpong") -> dict[str, float]:
    """Return what became of the source's picture.

    flicker, sharpness: in the mouth, 1 is as the source (`metrics.MouthLook`). seam: the gradient along the edge of
    what was changed, 1 is as the source there. elsewhere: mean absolute difference outside the face, 0…255: what
    encoding lost. Each output frame is compared with the source frame it was made from, past the source's end as
    `extend` says.
    Raises `InputError` where their sizes differ.
    """
    _same_size(output, source)
    index = source.analysis.index
    timeline = build_timeline(
        index,
        source.reader.info.fps,
        audio_duration=float(output.analysis.index.duration),
        extend=extend,
        output_fps=output.reader.info.fps if output.reader.info.fps != source.reader.info.fps else None,
        still=source.reader.is_still,
    )
    count = min(len(timeline), len(output.analysis.index))
    order = timeline.source_frames[:count]
    landmarks = source.landmarks[order]
    look, seam, elsewhere = metrics.MouthLook(), pixels.Seam(), pixels.Difference(with_ssim=False)
    bases, outputs = source.in_order(order), output.in_order(np.arange(count))
    for frame, (base, shown) in enumerate(zip(bases, outputs, strict=True)):
        if not np.isfinite(landmarks[frame]).all():
            continue
        look.add(frame, shown, base, landmarks[frame])
        face = pixels.face_box(landmarks[frame], base.shape[1], base.shape[0])
        seam.add(_cut(shown, face), _cut(base, face))
        outside = pixels.outside(face, base.shape[1], base.shape[0])
        elsewhere.add(shown[outside], base[outside])
    return {
        "flicker": look.flicker,
        "sharpness": look.sharpness,
        "seam": seam.ratio,
        "elsewhere": elsewhere.mean,
    }


def against_truth(output: Video, truth: Video) -> dict[str, float]:
    """Return how well the mouth follows that of the one who said it, over the output's frames that both have.

    opening_r: Pearson's r of the mouth openings; opening_lag: frames by which the output's comes later;
    opening_amplitude: its deviation over the truth's; landmark_distance: mean distance of the lip points, heads
    brought together, in hundredths of the outer eye corners' distance (`metrics.lip_distance`).
    Raises `InputError` where fewer than ten frames show both faces.
    """
    frames, moments = _same_moments(output, truth)
    shown, wanted = output.landmarks[frames], truth.landmarks[moments]
    both = np.isfinite(shown).all(axis=(1, 2)) & np.isfinite(wanted).all(axis=(1, 2))
    if both.sum() < _FEWEST:
        raise InputError(
            f"Only {both.sum()} frames show a face in both {output.path.name} and {truth.path.name}.",
            "Give the video in which the same words were said.",
        )
    mine, theirs = metrics.mouth_opening(shown[both]), metrics.mouth_opening(wanted[both])
    return {
        "opening_r": metrics.pearson(mine, theirs),
        "opening_lag": float(metrics.best_lag(mine, theirs)),
        "opening_amplitude": float(mine.std() / theirs.std()) if theirs.std() > 0 else float("nan"),
        "landmark_distance": metrics.lip_distance(shown[both], wanted[both]),
    }


def _same_moments(output: Video, other: Video) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the output's frames [n] while the other lasts, and the other's nearest in time: their rates may differ."""
    mine, theirs = output.analysis.index.times, other.analysis.index.times
    middles = (theirs[1:] + theirs[:-1]) / 2
    frames = np.flatnonzero(mine < float(other.analysis.index.duration))
    return frames, np.searchsorted(middles, mine[frames], side="right")


def _same_size(first: Video, second: Video) -> None:
    sizes = [(video.reader.info.width, video.reader.info.height) for video in (first, second)]
    if sizes[0] != sizes[1]:
        shapes = " and ".join(
            f"{video.path.name} ({w}x{h})" for video, (w, h) in zip((first, second), sizes, strict=True)
        )
        raise InputError(f"The pictures of {shapes} differ in size.", "Give videos of one size.")


def _mouth(landmarks: NDArray[np.float32], frame: NDArray[np.uint8]) -> metrics.Box | None:
    if not np.isfinite(landmarks).all():
        return None
    box = metrics.mouth_box(landmarks, frame.shape[1], frame.shape[0])
    return box if box[2] and box[3] else None


def _cut(frame: NDArray[np.uint8], box: metrics.Box) -> NDArray[np.uint8]:
    x, y, width, height = box
    return frame[y : y + height, x : x + width]
