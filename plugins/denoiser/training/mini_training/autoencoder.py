"""Training of the autoencoder: pictures of 128 px to 16 × 16 latents of 16 channels and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

from mini_training.batches import Sampler
from mini_training.footage import Clip
from mini_training.loop import Loop, Plan
from mini_training.patch_autoencoder import PatchAutoencoder, start
from mini_training.recipe import channels_last, keep_mask, make_autoencoder
from mini_training.workers import Numbers

ITEMS: Final = 4  # pictures of a worker's batch
MASKED: Final = 0.3  # share of pictures with the mask's area grey, as the masked face is encoded
LATENT_NOISE: Final = 0.08  # deviation, of latents of deviation 1: the decoder must bear the U-Net's errors
MOMENTS: Final = 0.05  # weight of the penalty that keeps each channel at mean 0 and deviation 1
GRADIENT: Final = 1.0  # weight of the error of the picture's gradients
_STARTING: Final = 512  # pictures its principal components are taken from
_NO_WORKER: Final = 1000  # drawn by none in training
_CHECKED: Final = 48  # pictures


def train_autoencoder(clips: Sequence[Clip], unseen: Sequence[Clip], folder: Path, plan: Plan, seed: int) -> None:
    """Train to the plan's end, from the checkpoint where there is one."""
    torch.manual_seed(seed)
    sampler = Sampler(clips, seed)
    keep = keep_mask()
    pictures = plain_pictures(unseen, _CHECKED)

    def loss(codec: nn.Module, step: int, worker: int) -> Numbers:
        assert isinstance(codec, PatchAutoencoder)
        random = torch.Generator().manual_seed(hash_of(seed, step, worker))
        batch = sampler.pictures(step, worker, ITEMS)
        hidden = torch.rand(ITEMS, generator=random) < MASKED
        batch = torch.where(hidden[:, None, None, None], batch * keep, batch)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            latents = codec.encode(batch).float()
            noise = torch.randn(latents.shape, generator=random) * LATENT_NOISE
            out = codec.decode(latents + noise).float()
        moments = latents.mean((0, 2, 3)).square().mean() + (latents.std((0, 2, 3)) - 1).square().mean()
        error = (out - batch).abs().mean()
        slope = gradient_error(out - batch)
        torch.autograd.backward(error + GRADIENT * slope + MOMENTS * moments)
        return {"l1": error.item(), "gradient_l1": slope.item(), "moments": moments.item()}

    def check(codec: nn.Module) -> Numbers:
        assert isinstance(codec, PatchAutoencoder)
        with torch.inference_mode():
            latents = codec.encode(pictures)
            out = codec.decode(latents)
            masked = codec.decode(codec.encode(pictures * keep))
        error = ((out - pictures).clamp(-2, 2) / 2).square().mean((1, 2, 3))
        masked_error = ((masked - pictures * keep) / 2).square().mean((1, 2, 3))
        return {
            "unseen_psnr": float((-10 * error.log10()).mean()),
            "unseen_masked_psnr": float((-10 * masked_error.log10()).mean()),
            "latent_deviation": float(latents.std()),
            "latent_mean": float(latents.mean()),
        }

    codec = make_autoencoder()
    start(codec, torch.cat([sampler.pictures(0, _NO_WORKER + k, _STARTING // 4) for k in range(4)]))
    channels_last(codec)
    Loop(codec, folder, plan).run(loss, check)


def gradient_error(error: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring errors, at full, half and quarter size."""
    total = torch.zeros(())
    for _ in range(3):
        total = total + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        error = F.avg_pool2d(error, 2)
    return total / 2


def plain_pictures(clips: Sequence[Clip], count: int) -> Tensor:
    """Return `count` pictures of clips, evenly chosen, not augmented."""
    sampler = Sampler(clips, 0, augment=False)
    return sampler.pictures(0, 0, count)


def hash_of(seed: int, step: int, worker: int) -> int:
    """Return a seed for torch, of 63 bits, from the three."""
    return int(np.random.default_rng((seed, step, worker, 1)).integers(1 << 62))
