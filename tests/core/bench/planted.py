"""Denoisers planted for the bench to find out: two alike, one that dawdles, one that is wrong, one that breaks.

A plugin: each test installs it for the worker processes through `PYTHONPATH`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipsync_core import BackendSpec, StageKind, hookimpl
from lipsync_core.types import AlignedFaces, AudioFeatures, GeneratedFaces, MouthMask
from tests.core import fake_plugin
from tests.core.fake_plugin import FakeDenoiser

ROOT = Path(__file__).resolve().parents[3]
PROFILE = "".join(f'[{kind}]\nbackend = "fake"\n' for kind in StageKind) + "[job]\ncrf = 1\n"


class Steady(FakeDenoiser):
    """Takes a set time a frame, so that noise is small beside it."""

    frame_s = 0.005

    def generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32] | None
    ) -> GeneratedFaces:
        time.sleep(self.frame_s * len(faces.pixels))
        return super().generate(faces, mask, audio, noise)


class Slow(Steady):
    frame_s = 0.06


class Wrong(Steady):
    def generate(self, faces: AlignedFaces, *rest: Any) -> GeneratedFaces:
        right = super().generate(faces, *rest).pixels
        speckle = np.random.default_rng(faces.track.start).normal(0, 0.2, right.shape)
        return GeneratedFaces(np.clip(right + speckle, 0, 1).astype(np.float32))


class Broken(FakeDenoiser):
    def generate(self, *_: Any) -> GeneratedFaces:
        raise FloatingPointError("planted")


class Dying(FakeDenoiser):
    def generate(self, *_: Any) -> GeneratedFaces:
        raise SystemExit("planted end")


class Killed(FakeDenoiser):
    """Lives through one run of twelve frames, then something ends its process."""

    calls = 0

    def generate(self, *arguments: Any) -> GeneratedFaces:
        self.calls += 1
        if self.calls > 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().generate(*arguments)


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    options = f"{fake_plugin.__name__}:Options"
    classes = {
        "twin-a": Steady,
        "twin-b": Steady,
        "slow": Slow,
        "wrong": Wrong,
        "breaks": Broken,
        "dies": Dying,
        "killed": Killed,
    }
    return [
        *fake_plugin.lipsync_register_backends(),
        *(
            BackendSpec(StageKind.DENOISER, name, "Planted", f"{__name__}:{made.__name__}", options)
            for name, made in classes.items()
        ),
        BackendSpec(
            StageKind.DENOISER,
            "absent",
            "Needs what is not here",
            f"{__name__}:Steady",
            options,
            requires=("no_such_module",),
            install="pip install no-such-module",
        ),
    ]
