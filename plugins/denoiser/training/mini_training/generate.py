"""From crops and mouth shapes to new crops, by the same steps as `latentsync-torch`; for measuring checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipsync_denoiser.latentsync.sampler_torch import Sampling, sample
from mini_training.batches import to_tensor
from mini_training.loop import averaged
from mini_training.recipe import DOWNSCALE, STEPS, keep_mask, make_autoencoder, scheduler
from mini_training.unet import make_unet

CHUNK: Final = 16  # frames


class Generator:
    """A trained autoencoder and U-Net."""

    def __init__(self, autoencoder: Path, unet: Path, steps: int = STEPS) -> None:
        self.codec = make_autoencoder()
        self.codec.load_state_dict(averaged(autoencoder))
        self.codec.eval().requires_grad_(False)
        self.unet = make_unet(0)
        self.unet.load_state_dict(averaged(unet))
        self.unet.eval().requires_grad_(False)
        self.keep = keep_mask()
        self.steps = steps

    @torch.inference_mode()
    def generate(
        self, crops: NDArray[np.uint8], tokens: NDArray[np.float32], reference: int = 0, seed: int = 0
    ) -> NDArray[np.uint8]:
        """Return new crops uint8 [n, 128, 128, 3] of crops of that shape, of which one is the reference of all."""
        parts = [slice(start, start + CHUNK) for start in range(0, len(crops), CHUNK)]
        shown = to_tensor(crops[reference : reference + 1])
        return np.concatenate(
            [self._chunk(to_tensor(crops[p]), shown, torch.from_numpy(tokens[p]), seed) for p in parts]
        )

    @torch.inference_mode()
    def through_autoencoder(self, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return crops encoded and decoded: the best any U-Net could do."""
        parts = [to_tensor(crops[start : start + CHUNK]) for start in range(0, len(crops), CHUNK)]
        with torch.autocast("cpu", torch.bfloat16):
            return np.concatenate([self._paste(p, self.codec.decode(self.codec.encode(p)).float()) for p in parts])

    def _chunk(self, face: Tensor, shown: Tensor, tokens: Tensor, seed: int) -> NDArray[np.uint8]:
        keep = self.keep
        with torch.autocast("cpu", torch.bfloat16):
            encoded = self.codec.encode(torch.cat([face * keep, shown])).float()
            masked, reference = encoded[:-1], encoded[-1:].expand(len(face), -1, -1, -1)
            mask = keep[:, :, ::DOWNSCALE, ::DOWNSCALE].expand(len(face), -1, -1, -1)
            fixed = torch.cat([mask, masked, reference], 1).transpose(0, 1)[None]
            noise = torch.randn(masked[:1].shape, generator=torch.Generator().manual_seed(seed)).expand_as(masked)
            start = noise.transpose(0, 1)[None]
            sampling = Sampling(self.steps, 1.0, 1, window=CHUNK, overlap=0)
            latents = sample(self.unet, scheduler(), start, fixed, tokens, sampling)
            return self._paste(face, self.codec.decode(latents[0].transpose(0, 1)).float())

    def _paste(self, face: Tensor, decoded: Tensor) -> NDArray[np.uint8]:
        whole = decoded * (1 - self.keep) + face * self.keep
        pixels = (whole.permute(0, 2, 3, 1) + 1) * 127.5
        return np.asarray(pixels.round().clamp(0, 255).to(torch.uint8).numpy())
