"""The five stages as Protocols: a backend class needs no import of the core to fit one.

A factory is called with the backend's options object and returns an instance. Attributes marked here as properties
may be plain attributes; the pipeline reads them before it decodes a frame, and names both backends where two
neighbours do not fit. State that belongs to one video lives in generators or is set anew by `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lipsync_core.progress import Progress
from lipsync_core.types import (
    AlignedFaces,
    AudioBlock,
    AudioFeatures,
    FaceTrack,
    Fit,
    FrameBatch,
    GeneratedFaces,
    MouthMask,
    VideoInfo,
)


class AudioEncoder(Protocol):
    """Turns sound into features for each video frame."""

    @property
    def sample_rate(self) -> int:
        """Rate it wants its samples at, Hz."""

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(tokens, dim) of the features of one frame."""

    def encode(self, audio: Iterable[AudioBlock], *, times: NDArray[np.float64]) -> Iterator[AudioFeatures]:
        """Yield features for the frames shown at `times` (float64 [N], s, not decreasing), in order, in any batches.

        `audio` may be iterated more than once; each iteration decodes the file again, so an encoder that needs
        a figure of the whole clip takes it in a first pass and holds no more than a window.
        A time before the sound begins or after it ends is legal: there is silence.
        """


class FaceAligner(Protocol):
    """Finds the face to dub and cuts it out."""

    @property
    def crop_size(self) -> int | None:
        """Side of its crops, px; None where it follows the video (each `FaceTrack` says it)."""

    def track(self, frames: Iterable[FrameBatch], *, video: VideoInfo) -> Iterator[FaceTrack]:
        """Follow one face through the frames of one scene; yields all frames in order, in any batches."""

    def crop(self, frames: FrameBatch, track: FaceTrack) -> AlignedFaces:
        """Cut the crops of `track` (all found) out of the same frames."""


class Masker(Protocol):
    """Says which pixels of a crop are to be generated."""

    def mask(self, faces: AlignedFaces) -> MouthMask:
        """Return the mask of each crop."""


class LatentDenoiser(Protocol):
    """Generates the mouth."""

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(tokens, dim) of the audio features it takes."""

    @property
    def crop_size(self) -> int | None:
        """Side of the crops it takes, px; None for any."""

    @property
    def max_frames(self) -> int:
        """Longest chunk it takes at once."""

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of one frame's starting noise; None where it uses none."""

    def generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32] | None
    ) -> GeneratedFaces:
        """Generate n ≤ `max_frames` consecutive frames of one scene; `noise` is float32 [n, *latent_shape]."""


class Compositor(Protocol):
    """Puts generated faces back into their frames."""

    def composite(
        self, frames: FrameBatch, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces
    ) -> FrameBatch:
        """Return new frames; where the mask is 0 the pixels are those of `frames`, byte for byte."""


class SourceClip(Protocol):
    """What `LatentDenoiser.prepare` may look at: the whole source and the whole job, streamed, never all its pixels.

    Everything that iterates starts anew each time it is called.
    """

    @property
    def video(self) -> VideoInfo:
        """Facts of the source video."""

    @property
    def scenes(self) -> tuple[range, ...]:
        """Source frame indices of each scene, in order."""

    @property
    def source_frames(self) -> NDArray[np.int64]:
        """The job: [N], which source frame each output frame is made from."""

    @property
    def output_fps(self) -> float:
        """Output frames a second, the average where the rate varies."""

    def tracks(self) -> Iterator[FaceTrack]:
        """Yield the track of each scene; cheap, decodes nothing."""

    def faces(self, frames: NDArray[np.int64] | None = None) -> Iterator[AlignedFaces]:
        """Yield the crops of all frames that have a face, in runs of consecutive source frames (`track.start`).

        frames: only these source frames; what lies between them is decoded as little as the file allows.
        """

    def audio(self) -> Iterator[AudioFeatures] | None:
        """Yield the features of the source's own sound for every source frame; None where it has none or is silent."""

    def target_audio(self) -> Iterator[AudioFeatures]:
        """Yield the features of the new sound for every output frame."""


@runtime_checkable
class Preparable(Protocol):
    """A denoiser that wants to see the source once before the first chunk."""

    def prepare(self, source: SourceClip) -> None:
        """Look at the source; replaces whatever an earlier call left."""


@runtime_checkable
class Adaptable(Protocol):
    """A denoiser whose model can be fitted to one speaker."""

    def adapt(
        self,
        source: SourceClip,
        masker: Masker,
        folder: Path,
        *,
        steps: int,
        seed: int,
        progress: Progress,
        report: Callable[[int, float], None],
    ) -> Fit:
        """Fit the model to the source's own frames and sound, and write it as a model folder.

        folder: is there, and empty. report: called now and then with a step and the mouth's PSNR, dB, on frames that
        are not learnt from. The same `seed` gives the same weights on the same machine.
        """


@runtime_checkable
class SameStartNoise(Protocol):
    """A denoiser whose `latent_shape` begins with a number of noises, the first of which all frames have in common.

    So LatentSync works: it starts every frame of a video from one noise, but draws the latents it is given anew.
    """

    @property
    def same_start_noise(self) -> bool:
        """Whether `noise[:, 0]` is to be the same in every frame of the job."""


@runtime_checkable
class OfModel(Protocol):
    """A denoiser that runs one of several models; the summary names it, and a job is not resumed with another."""

    @property
    def model_name(self) -> str:
        """`name` in the model folder's `model.json`."""


@runtime_checkable
class ZoomedCrops(Protocol):
    """A denoiser that says how much crops are enlarged; an aligner's option `zoom` follows it where it is None."""

    @property
    def crop_zoom(self) -> float:
        """1 for the aligner's plain geometry."""


@runtime_checkable
class Closable(Protocol):
    """A backend that holds something to let go of."""

    def close(self) -> None:
        """Release it; a second call does nothing."""
