"""How a backend of each stage is called on sample inputs, so that one list of checks does for all five."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from lipsync_core.backends import StageKind
from lipsync_core.errors import BackendError
from lipsync_core.stages import Preparable
from lipsync_core.testing import samples
from lipsync_core.types import AlignedFaces, AudioBlock, AudioFeatures, FrameBatch, GeneratedFaces, MouthMask

FRAMES: Final = 34  # of the sample clip: twice the longest run the checks ask for
_OVERSHOOT: Final = 2.0  # random weights give up to 1.03 beyond; more is another unit, such as 0…255
_BLOCK: Final = 997  # samples of sound in a block, times the size asked for

Output = tuple[NDArray[Any], ...]


class Driver(Protocol):
    """Calls a backend of one stage."""

    attributes: ClassVar[tuple[str, ...]]

    def prepare(self, backend: Any) -> None:
        """Show it the sample clip, if it wants to see it."""

    def inputs(self, backend: Any, start: int, stop: int) -> Any:
        """Return new inputs for frames `start`…`stop` − 1."""

    def longest(self, backend: Any) -> int:
        """Return the most frames it takes at once."""

    def run(self, backend: Any, inputs: Any, size: int) -> Output:
        """Hand it the inputs in pieces of `size`, and return its outputs, one row per frame."""

    def fault(self, backend: Any, inputs: Any, output: Output) -> str:
        """Return what is wrong with the shapes, dtypes or range of an output, or an empty string."""


class _Plain:
    attributes: ClassVar[tuple[str, ...]] = ()

    def prepare(self, backend: Any) -> None:
        """Nothing to show."""

    def longest(self, backend: Any) -> int:
        """Any number."""
        return FRAMES


def array_fault(
    name: str,
    array: object,
    dtype: type[np.generic],
    shape: tuple[int, ...],
    range_: tuple[float, float] | None = None,
    overshoot: float = 0.0,
) -> str:
    """Return what is wrong with an array, or an empty string; it may leave `range_` by `overshoot`."""
    if not isinstance(array, np.ndarray):
        return f"{name} is a {type(array).__name__}, not a NumPy array"
    if array.dtype != dtype:
        return f"{name} is {array.dtype}, not {np.dtype(dtype)}"
    if array.shape != shape:
        return f"{name} has shape {list(array.shape)}, not {list(shape)}"
    if array.dtype.kind != "f":
        return ""
    if not np.isfinite(array).all():
        return f"{name} holds numbers that are not finite"
    if range_ is not None and array.size:
        low, high = range_
        if array.min() < low - overshoot or array.max() > high + overshoot:
            return f"{name} ranges over {array.min():.4g}…{array.max():.4g}, not {low:g}…{high:g}"
    return ""


@dataclass(frozen=True, slots=True)
class Sound:
    """What an encoder is given: samples [m] and the times, s, of the frames wanted [n]."""

    samples: NDArray[np.float32]
    times: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Blocks:
    samples: NDArray[np.float32]
    length: int

    def __iter__(self) -> Iterator[AudioBlock]:
        for start in range(0, len(self.samples), self.length):
            yield AudioBlock(start, self.samples[start : start + self.length])


class AudioDriver(_Plain):
    """Lets an encoder hear a second and a half of speech."""

    attributes: ClassVar[tuple[str, ...]] = ("sample_rate", "feature_shape", "encode")

    def inputs(self, backend: Any, start: int, stop: int) -> Sound:
        """The whole sound, and the times of the frames."""
        return Sound(
            samples.speech(FRAMES / float(samples.FPS), backend.sample_rate),
            np.arange(start, stop) / float(samples.FPS),
        )

    def run(self, backend: Any, inputs: Sound, size: int) -> Output:
        """Encode it in blocks of a length that follows `size`."""
        batches, copies = [], []
        for batch in backend.encode(_Blocks(inputs.samples, _BLOCK * size), times=inputs.times):
            batches.append(batch.values)
            copies.append(batch.values.copy())
        if not batches:
            return (np.empty((0, *backend.feature_shape), np.float32),)
        if not all(map(np.array_equal, batches, copies)):
            raise BackendError("`encode` wrote into features it had yielded before.", "Yield a new array each time.")
        return (_joined(batches),)

    def fault(self, backend: Any, inputs: Sound, output: Output) -> str:
        """Features float32 [n, *feature_shape]."""
        return array_fault("the features", output[0], np.float32, (len(inputs.times), *backend.feature_shape))


class AlignerDriver(_Plain):
    """Shows an aligner the drawn face."""

    attributes: ClassVar[tuple[str, ...]] = ("crop_size", "track", "crop")

    def inputs(self, backend: Any, start: int, stop: int) -> FrameBatch:
        """Frames of the clip."""
        return samples.frames(start, stop)

    def run(self, backend: Any, inputs: FrameBatch, size: int) -> Output:
        """Follow the face through the frames as one scene, then cut it out of those where it is found."""
        video = samples.SampleClip(len(inputs.pixels), samples.NATIVE_SIDE, (1, 1)).video
        tracks = list(backend.track(iter(_pieces(inputs, size)), video=video))
        found = _joined([t.found for t in tracks])
        crops = []
        for there in tracks:
            pixels = inputs.pixels[there.start - inputs.start :]
            for rows in _found_rows(there.found, size):
                frames = FrameBatch(there.start + rows.start, pixels[rows])
                crops.append(backend.crop(frames, there[rows]).pixels)
        matrices = _joined([t.frame_to_crop for t in tracks])
        landmarks = _joined([t.landmarks for t in tracks])
        if not found.all():  # the other rows mean nothing
            matrices = np.where(found[:, None, None], matrices, 0.0)
            landmarks = np.where(found[:, None, None], landmarks, np.float32(0))
        return found, matrices, landmarks, _joined(crops) if crops else np.empty((0, 0, 0, 3), np.uint8)

    def fault(self, backend: Any, inputs: FrameBatch, output: Output) -> str:
        """Every frame has its row, and crops of the size declared."""
        found, matrices, landmarks, crops = output
        n = len(inputs.pixels)
        side = backend.crop_size or (crops.shape[1] if len(crops) else 0)
        if not found.all():
            return f"the drawn face is found in {int(found.sum())} of {n} frames"
        return (
            array_fault("found", found, np.bool_, (n,))
            or array_fault("frame_to_crop", matrices, np.float64, (n, 2, 3))
            or array_fault("landmarks", np.nan_to_num(landmarks), np.float32, (n, 68, 2))
            or array_fault("the crops", crops, np.uint8, (n, side, side, 3))
        )


class MaskerDriver(_Plain):
    """Gives a masker crops of the drawn face."""

    attributes: ClassVar[tuple[str, ...]] = ("mask",)

    def inputs(self, backend: Any, start: int, stop: int) -> AlignedFaces:
        """Crops."""
        return samples.aligned(start, stop)

    def run(self, backend: Any, inputs: AlignedFaces, size: int) -> Output:
        """Ask for the mask of each crop."""
        return (_joined([backend.mask(cut_faces(inputs, rows)).generate for rows in _rows(inputs, size)]),)

    def fault(self, backend: Any, inputs: AlignedFaces, output: Output) -> str:
        """Masks float32 [n, S, S], 0…1."""
        return array_fault("the mask", output[0], np.float32, inputs.pixels.shape[:3], (0, 1))


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a denoiser is given."""

    faces: AlignedFaces
    mask: MouthMask
    audio: AudioFeatures
    noise: NDArray[np.float32] | None


class DenoiserDriver:
    """Gives a denoiser crops of the drawn face, in the size it takes, and features of the shape it takes."""

    attributes: ClassVar[tuple[str, ...]] = ("feature_shape", "crop_size", "max_frames", "latent_shape", "generate")

    def prepare(self, backend: Any) -> None:
        """Show it the sample clip, if it wants to see it."""
        tokens, dim = backend.feature_shape
        if isinstance(backend, Preparable):
            backend.prepare(samples.SampleClip(FRAMES, self._side(backend), (tokens, dim)))

    def inputs(self, backend: Any, start: int, stop: int) -> Chunk:
        """Crops, their masks, features and noise."""
        faces = samples.aligned(start, stop, self._side(backend))
        noise = None
        if backend.latent_shape is not None:
            rows = [np.random.default_rng([3, k]).standard_normal(backend.latent_shape) for k in range(start, stop)]
            noise = np.stack(rows).astype(np.float32)
        features = samples.features(start, stop, tuple(backend.feature_shape))
        return Chunk(faces, samples.mouth_mask(faces), features, noise)

    def longest(self, backend: Any) -> int:
        """What it says."""
        return int(backend.max_frames)

    def run(self, backend: Any, inputs: Chunk, size: int) -> Output:
        """Generate in chunks."""
        made = [
            backend.generate(
                cut_faces(inputs.faces, rows),
                MouthMask(inputs.mask.generate[rows]),
                AudioFeatures(inputs.audio.start + rows.start, inputs.audio.values[rows]),
                None if inputs.noise is None else inputs.noise[rows],
            ).pixels
            for rows in _rows(inputs.faces, size)
        ]
        return (_joined(made),)

    def fault(self, backend: Any, inputs: Chunk, output: Output) -> str:
        """Crops float32 [n, S, S, 3], 0…1 and what a decoder overshoots."""
        return array_fault("the generated crop", output[0], np.float32, inputs.faces.pixels.shape, (0, 1), _OVERSHOOT)

    def _side(self, backend: Any) -> int:
        return int(backend.crop_size or samples.NATIVE_SIDE)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a compositor is given."""

    frames: FrameBatch
    faces: AlignedFaces
    mask: MouthMask
    generated: GeneratedFaces


class CompositorDriver(_Plain):
    """Gives a compositor crops of another colour to put back."""

    attributes: ClassVar[tuple[str, ...]] = ("composite",)

    def inputs(self, backend: Any, start: int, stop: int) -> Parts:
        """Frames, crops, masks and crops of another colour."""
        faces = samples.aligned(start, stop)
        tint = np.array([0.6, 0.9, 0.7], np.float32)
        generated = GeneratedFaces(faces.pixels.astype(np.float32) / np.float32(255) * tint)
        return Parts(samples.frames(start, stop), faces, samples.mouth_mask(faces), generated)

    def run(self, backend: Any, inputs: Parts, size: int) -> Output:
        """Put the crops back."""
        done = [
            backend.composite(
                FrameBatch(inputs.frames.start + rows.start, inputs.frames.pixels[rows]),
                cut_faces(inputs.faces, rows),
                MouthMask(inputs.mask.generate[rows]),
                GeneratedFaces(inputs.generated.pixels[rows]),
            ).pixels
            for rows in _rows(inputs.faces, size)
        ]
        return (_joined(done),)

    def fault(self, backend: Any, inputs: Parts, output: Output) -> str:
        """Frames uint8 of the same shape."""
        return array_fault("the frame", output[0], np.uint8, inputs.frames.pixels.shape)


def cut_faces(faces: AlignedFaces, rows: slice) -> AlignedFaces:
    """Return consecutive crops of a batch."""
    return AlignedFaces(faces.track[rows], faces.pixels[rows])


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return one array of all parts; a single one as it is, so that one written into later is noticed."""
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _found_rows(found: NDArray[np.bool_], size: int) -> list[slice]:
    """Return the stretches, at most `size` long, in which the face is found."""
    edges = np.flatnonzero(np.diff(found, prepend=False, append=False)).reshape(-1, 2).tolist()
    return [slice(row, min(row + size, stop)) for start, stop in edges for row in range(start, stop, size)]


def _rows(faces: AlignedFaces, size: int) -> list[slice]:
    n = len(faces.pixels)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _pieces(frames: FrameBatch, size: int) -> list[FrameBatch]:
    starts = range(0, len(frames.pixels), size)
    return [FrameBatch(frames.start + start, frames.pixels[start : start + size]) for start in starts]


DRIVERS: Final[dict[StageKind, Callable[[], Driver]]] = {
    StageKind.AUDIO: AudioDriver,
    StageKind.ALIGNER: AlignerDriver,
    StageKind.MASKER: MaskerDriver,
    StageKind.DENOISER: DenoiserDriver,
    StageKind.COMPOSITOR: CompositorDriver,
}
