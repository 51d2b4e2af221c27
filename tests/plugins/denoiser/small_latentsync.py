"""A model small enough to adapt in a test, whose pictures are their own latents and whose features are mouth shapes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.models.folder import ModelConfig
from lipsync_core.models.tensors_torch import write_safetensors
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, MouthMask, VideoInfo
from lipsync_denoiser.latentsync.autoencoder_torch import blank_autoencoder
from lipsync_denoiser.latentsync.unet_torch import build_unet, initialise

SIDE, PATCH = 32, 4
LATENTS = 3 * PATCH * PATCH
TOKENS, NUMBERS = 3, 8


def config(**changes: Any) -> ModelConfig:
    """Return its description; `changes` replace whole parts."""
    parts = {
        "name": "small",
        "title": "Small",
        "licence": "none",
        "resolution": SIDE,
        "frames": 4,
        "audio": {"kind": "mouth-shape", "reach": 1},
        "autoencoder": {
            "kind": "patch",
            "weights": "autoencoder.safetensors",
            "patch": PATCH,
            "latent_channels": LATENTS,
            "width": 8,
        },
        "unet": {
            "weights": "unet.safetensors",
            "in_channels": 3 * LATENTS + 1,
            "out_channels": LATENTS,
            "block_out_channels": (32, 32),
            "layers_per_block": 1,
            "attention_heads": 2,
            "cross_attention_dim": TOKENS * NUMBERS,
        },
        "scheduler": {
            "prediction": "v_prediction",
            "spacing": "trailing",
            "zero_terminal_snr": True,
            "set_alpha_to_one": True,
        },
    }
    return ModelConfig.model_validate(parts | changes)


def write(root: Path, model: ModelConfig | None = None) -> Path:
    """Write the model folder with a random U-Net."""
    model = model or config()
    root.mkdir()
    (root / "model.json").write_text(model.model_dump_json(), encoding="utf-8")
    net = blank_autoencoder(model.autoencoder, torch.float32)
    initialise(net, 0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in ("to_latents.weight", "to_patches.weight"):
                parameter.copy_(torch.eye(LATENTS)[:, :, None, None])
            elif "conv_out" in name or name.startswith("to_"):
                parameter.zero_()
    write_safetensors(root / model.autoencoder.weights, net.state_dict())
    unet = build_unet(model.unet, torch.float32, "cpu", 1)
    write_safetensors(root / model.unet.weights, {k: v.half() for k, v in unet.state_dict().items()})
    return root


class Speaker:
    """A source whose mouth, a dark bar, opens and shuts; its landmarks say by how much."""

    scenes = ()
    source_frames = np.zeros(0, np.int64)

    def __init__(self, count: int = 60, *, heard: bool = True, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.opening = 3 + 2 * np.sin(np.arange(count) / 3) + rng.normal(0, 0.2, count)
        self.video = VideoInfo(SIDE, SIDE, Fraction(25), count, has_audio=heard)
        self._heard = heard
        landmarks = np.zeros((count, lm.COUNT, 2), np.float32)
        landmarks[:, lm.LIPS, 0] = np.linspace(10, 22, 20)
        landmarks[:, lm.LIPS, 1] = 22
        for upper, lower in ((lm.UPPER_LIP_INNER, lm.LOWER_LIP_INNER), (lm.UPPER_LIP_TOP, lm.LOWER_LIP_BOTTOM)):
            landmarks[:, upper, 1] -= self.opening / 2
            landmarks[:, lower, 1] += self.opening / 2
        still = np.tile(np.eye(2, 3), (count, 1, 1))
        self.track = FaceTrack(0, still, np.ones(count, np.bool_), landmarks, SIDE)
        rows = np.arange(SIDE)
        face = 120 + 60 * np.sin(np.arange(SIDE) / 5)[:, None] * np.cos(np.arange(SIDE) / 7)
        self.pixels = np.repeat(face[None, :, :, None], 3, 3) * [1.0, 0.8, 0.7] * np.ones((count, 1, 1, 1))
        for frame, opening in enumerate(self.opening):
            self.pixels[frame, np.abs(rows - 22) <= opening / 2, 10:22] = 30
        self.pixels = self.pixels.astype(np.uint8)

    def tracks(self) -> Iterator[FaceTrack]:
        return iter([self.track])

    def faces(self, frames: NDArray[np.int64] | None = None) -> Iterator[AlignedFaces]:
        for start in range(0, len(self.pixels), 7):
            rows = slice(start, min(start + 7, len(self.pixels)))
            if frames is None or np.isin(np.arange(rows.start, rows.stop), frames).all():
                yield AlignedFaces(self.track[rows], self.pixels[rows])

    def audio(self) -> Iterator[AudioFeatures] | None:
        return self._features() if self._heard else None

    def target_audio(self) -> Iterator[AudioFeatures]:
        return iter(())

    def _features(self) -> Iterator[AudioFeatures]:
        for start in range(0, len(self.pixels), 11):
            count = min(11, len(self.pixels) - start)
            yield AudioFeatures(start, np.full((count, TOKENS, TOKENS * NUMBERS), start, np.float32))


class LowerHalf:
    """The masker of the small model."""

    def mask(self, faces: AlignedFaces) -> MouthMask:
        generate = np.zeros(faces.pixels.shape[:3], np.float32)
        generate[:, SIDE // 2 :] = 1
        return MouthMask(generate)
