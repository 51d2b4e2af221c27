"""The fake backends, slowed down so that a job can be stopped in the middle.

`LIPSYNC_TEST_CHUNK_S` is what a chunk takes; from frame `LIPSYNC_TEST_STUCK_AT` on a chunk takes an hour, in a call
that nothing interrupts. Then a file `stuck` is in the cache folder.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from numpy.typing import NDArray

from lipsync_core import BackendSpec, StageKind, hookimpl
from lipsync_core.types import AlignedFaces, AudioFeatures, GeneratedFaces, MouthMask
from tests.core import fake_plugin as fake


class SlowDenoiser(fake.FakeDenoiser):
    def generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray | None
    ) -> GeneratedFaces:
        time.sleep(float(os.environ["LIPSYNC_TEST_CHUNK_S"]))
        if faces.track.start >= int(os.environ["LIPSYNC_TEST_STUCK_AT"]):
            (Path(os.environ["LIPSYNC_CACHE"]) / "stuck").touch()
            time.sleep(3600)
        return super().generate(faces, mask, audio, noise)


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    return [
        BackendSpec(spec.kind, "fake", "For tests", f"{__name__}:SlowDenoiser", spec.options)
        if spec.kind is StageKind.DENOISER
        else spec
        for spec in fake.lipsync_register_backends()
    ]
