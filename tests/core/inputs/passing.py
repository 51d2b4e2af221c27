"""Five backends that leave every picture as it is: what a job does to a file is then the media code's doing alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from lipsync_core import BackendSpec, StageKind, hookimpl
from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask, VideoInfo
from tests.core import fake_plugin as fake


class WholeFrame(fake.FakeAligner):
    """Takes every frame, of any size, for a face."""

    def track(self, frames: Iterable[FrameBatch], *, video: VideoInfo) -> Iterator[FaceTrack]:
        scale = self.crop_size / np.array([video.width, video.height], np.float64)
        for batch in frames:
            n = len(batch.pixels)
            affine = np.tile(np.array([[scale[0], 0, 0], [0, scale[1], 0]]), (n, 1, 1))
            found = np.ones(n, np.bool_)
            yield FaceTrack(batch.start, affine, found, np.full((n, lm.COUNT, 2), np.nan, np.float32), self.crop_size)

    def crop(self, frames: FrameBatch, track: FaceTrack) -> AlignedFaces:
        size = (self.crop_size, self.crop_size)
        return AlignedFaces(track, np.stack([cv2.resize(pixels, size) for pixels in frames.pixels]))


class Untouched(fake.FakeCompositor):
    """Gives the frames back."""

    def composite(
        self, frames: FrameBatch, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces
    ) -> FrameBatch:
        return frames


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    here, there, options = __name__, fake.__name__, f"{fake.__name__}:Options"
    classes = {
        StageKind.AUDIO: f"{there}:FakeEncoder",
        StageKind.ALIGNER: f"{here}:WholeFrame",
        StageKind.MASKER: f"{there}:FakeMasker",
        StageKind.DENOISER: f"{there}:FakeDenoiser",
        StageKind.COMPOSITOR: f"{here}:Untouched",
    }
    return [BackendSpec(kind, "passing", "For tests", factory, options) for kind, factory in classes.items()]


PROFILE = "".join(f'[{kind}]\nbackend = "passing"\n' for kind in StageKind) + "[job]\ncrf = 10\n"
