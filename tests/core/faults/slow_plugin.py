"""The fake backends, slowed down so that a job can be stopped in the middle.

`LIPSYNC_TEST_CHUNK_S` is what a chunk takes; where it is minutes, the job stands in a call that nothing interrupts.
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
        (Path(os.environ["LIPSYNC_CACHE"]) / "generating").touch()
        time.sleep(float(os.environ.get("LIPSYNC_TEST_CHUNK_S", "0")))
        return super().generate(faces, mask, audio, noise)


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    return [
        BackendSpec(spec.kind, "fake", "For tests", f"{__name__}:SlowDenoiser", spec.options)
        if spec.kind is StageKind.DENOISER
        else spec
        for spec in fake.lipsync_register_backends()
    ]
