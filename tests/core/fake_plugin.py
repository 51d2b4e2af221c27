"""Five tiny backends: enough of each stage to see what the pipeline does with it.

The aligner finds a face in every frame whose top left pixel is not black. The denoiser fills the mask with a grey that
tells which frame it was asked for. `OPTIONS` of the denoiser can make it fail or forget a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core import BackendSpec, StageKind, hookimpl
from lipsync_core import landmarks as lm
from lipsync_core.types import (
    AlignedFaces,
    AudioBlock,
    AudioFeatures,
    FaceTrack,
    FrameBatch,
    GeneratedFaces,
    MouthMask,
    VideoInfo,
)

SIDE = 16
OFFSET = 8  # of the crop's corner in the frame, px


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    side: int = Field(SIDE, description="Side of the crop in px")
    dim: int = Field(2, description="Width of the features")
    fail_at: int | None = Field(None, description="Output frame at which the denoiser breaks")
    face: str = Field("largest", description="Ignored")
    weights: Path | None = Field(None, description="Ignored, but what a job depends on")


class FakeEncoder:
    sample_rate = 8000

    def __init__(self, options: Options) -> None:
        self.feature_shape = (1, options.dim)

    def encode(self, audio: Iterable[AudioBlock], *, times: NDArray[np.float64]) -> Iterator[AudioFeatures]:
        """Give each frame its own time and the number of samples there are."""
        count = sum(len(block.samples) for block in audio)
        for start in range(0, len(times), 3):
            part = times[start : start + 3]
            values = np.zeros((len(part), *self.feature_shape), np.float32)
            values[:, 0, 0], values[:, 0, 1] = part, count
            yield AudioFeatures(start, values)


class FakeAligner:
    version = "1"

    def __init__(self, options: Options) -> None:
        self.crop_size = options.side
        self.scenes_seen = 0

    def track(self, frames: Iterable[FrameBatch], *, video: VideoInfo) -> Iterator[FaceTrack]:
        self.scenes_seen += 1
        for batch in frames:
            n = len(batch.pixels)
            affine = np.tile(np.array([[1.0, 0, -OFFSET], [0, 1, -OFFSET]]), (n, 1, 1))
            found = batch.pixels[:, 0, 0].max(axis=1) > 60
            landmarks = np.full((n, lm.COUNT, 2), np.nan, np.float32)
            yield FaceTrack(batch.start, affine, found, landmarks, self.crop_size)

    def crop(self, frames: FrameBatch, track: FaceTrack) -> AlignedFaces:
        cut = slice(OFFSET, OFFSET + self.crop_size)
        return AlignedFaces(track, np.ascontiguousarray(frames.pixels[:, cut, cut]))


class FakeMasker:
    def __init__(self, options: Options) -> None:
        pass

    def mask(self, faces: AlignedFaces) -> MouthMask:
        generate = np.zeros(faces.pixels.shape[:3], np.float32)
        generate[:, faces.pixels.shape[1] // 2 :] = 1
        return MouthMask(generate)


class FakeDenoiser:
    max_frames = 4
    latent_shape = (2, 3)

    def __init__(self, options: Options) -> None:
        self.options = options
        self.feature_shape = (1, 2)
        self.crop_size = SIDE
        self.closed = 0
        self.prepared: list[int] = []

    def prepare(self, source: object) -> None:
        self.prepared = [len(faces.pixels) for faces in source.faces()]  # type: ignore[attr-defined]

    def generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32] | None
    ) -> GeneratedFaces:
        start, n = faces.track.start, len(faces.pixels)
        fail = self.options.fail_at
        if fail is not None and start <= fail < start + n:
            raise FloatingPointError("planted")
        assert noise is not None
        assert noise.shape == (n, 2, 3)
        assert audio.start == start
        assert len(audio.values) == n
        grey = ((start + np.arange(n)) % 10) / 10
        return GeneratedFaces(np.broadcast_to(grey[:, None, None, None], faces.pixels.shape).astype(np.float32))

    def close(self) -> None:
        self.closed += 1


class FakeCompositor:
    def __init__(self, options: Options) -> None:
        pass

    def composite(
        self, frames: FrameBatch, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces
    ) -> FrameBatch:
        pixels = frames.pixels.copy()
        side = faces.pixels.shape[1]
        half = slice(OFFSET + side // 2, OFFSET + side)
        pixels[:, half, OFFSET : OFFSET + side] = np.rint(generated.pixels[:, side // 2 :] * 255)
        return FrameBatch(frames.start, pixels)


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    here = __name__
    classes = {
        StageKind.AUDIO: "FakeEncoder",
        StageKind.ALIGNER: "FakeAligner",
        StageKind.MASKER: "FakeMasker",
        StageKind.DENOISER: "FakeDenoiser",
        StageKind.COMPOSITOR: "FakeCompositor",
    }
    return [
        BackendSpec(kind, "fake", "For tests", f"{here}:{name}", f"{here}:Options") for kind, name in classes.items()
    ]
