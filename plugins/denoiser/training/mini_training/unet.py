"""Training of the U-Net: velocity in latents, and the decoded picture where the mouth is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

from lipsync_denoiser.latentsync import attention_torch
from lipsync_denoiser.latentsync.patch_autoencoder_torch import PatchAutoencoder
from lipsync_denoiser.latentsync.sampler_torch import Sampling, sample
from lipsync_denoiser.latentsync.unet_torch import UNet3D, build_unet, zero_start
from mini_training.autoencoder import gradient_error, hash_of
from mini_training.batches import Batch, Sampler
from mini_training.footage import Clip
from mini_training.loop import Loop, Plan, averaged
from mini_training.recipe import (
    DOWNSCALE,
    STEPS,
    TIMESTEPS,
    alphas,
    channels_last,
    keep_mask,
    make_autoencoder,
    scheduler,
    unet_part,
)
from mini_training.workers import Numbers

# How often each timestep of inference is drawn; the rest is drawn evenly from all. The first decides most.
TIMESTEP_ODDS: Final = (0.4, 0.2, 0.15, 0.1)
OUTSIDE, INSIDE, MOUTH = 0.1, 1.0, 3.0  # weights in the loss: outside the mask, inside it, at the mouth
MOUTH_BOX: Final = (slice(7, 13), slice(4, 12))  # rows and columns of latents
PIXEL_LOSS: Final = 2.0
_CHECKED: Final = (6, 8)  # clips, frames of each


class Pointwise(nn.Conv2d):
    """A 1 × 1 convolution as a matrix product, whose gradient in bfloat16 oneDNN computes many times faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution gives."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def make_unet(seed: int) -> UNet3D:
    """Return the U-Net as training starts it."""
    unet = build_unet(unet_part(), torch.float32, "cpu", seed)
    zero_start(unet)
    nn.init.kaiming_uniform_(unet.conv_in.weight, a=5**0.5)  # new, not grown from a trained model: nothing to keep
    channels_last(unet)
    for layer in unet.modules():
        if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1):
            layer.__class__ = Pointwise
    return unet.train().requires_grad_(True)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, owner: attention_torch.Attention) -> Tensor:
    """Return scaled dot-product attention, written out."""
    weights: Tensor = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
    return weights.to(v.dtype) @ v


@dataclass(frozen=True)
class Encoded:
    """A batch in latents [items, 16, frames, 16, 16]: `fixed` has the mask, the masked face and the reference."""

    target: Tensor
    fixed: Tensor
    tokens: Tensor
    pictures: Tensor


class Task:
    """What the U-Net is trained for, given the frozen autoencoder."""

    def __init__(self, codec: PatchAutoencoder) -> None:
        self.codec = codec.eval().requires_grad_(False)
        self.keep = keep_mask()
        self.alphas = alphas()
        generate = 1 - self.keep[0, 0, ::DOWNSCALE, ::DOWNSCALE]
        self.weight = OUTSIDE + (INSIDE - OUTSIDE) * generate
        self.weight[MOUTH_BOX] = MOUTH
        self.weight = self.weight / self.weight.mean()
        self.pixel_weight = F.interpolate(self.weight[None, None], scale_factor=DOWNSCALE, mode="bilinear")

    @torch.no_grad()
    def encode(self, batch: Batch, frames: int) -> Encoded:
        """Encode target, masked target and reference."""
        keep = self.keep
        pictures = torch.cat([batch.target, batch.target * keep, batch.reference])
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            latents = self.codec.encode(pictures).float()
        target, masked, reference = (to_clips(part, frames) for part in latents.chunk(3))
        mask = keep[:, :, None, ::DOWNSCALE, ::DOWNSCALE].expand(len(target), 1, frames, -1, -1)
        return Encoded(target, torch.cat([mask, masked, reference], 1), batch.tokens, batch.target)

    def noised(self, encoded: Encoded, times: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return noisy latents, their velocity, and the square roots of alpha and of its complement."""
        alpha = self.alphas[times][:, None, None, None, None]
        a, s = alpha.sqrt(), (1 - alpha).sqrt()
        return a * encoded.target + s * noise, a * noise - s * encoded.target, a, s

    def velocity_error(self, velocity: Tensor, wanted: Tensor) -> Tensor:
        """Return the weighted squared error."""
        return ((velocity - wanted).square() * self.weight).mean()

    def pixel_error(self, latents: Tensor, pictures: Tensor) -> Tensor:
        """Return the weighted error of decoded latents [n, 16, 16, 16], and of its slopes."""
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            out = self.codec.decode(latents).float()
        error = (out - pictures) * self.pixel_weight
        return error.abs().mean() + gradient_error(error)


def to_clips(x: Tensor, frames: int) -> Tensor:
    """[n·frames, C, H, W] to [n, C, frames, H, W]."""
    return x.view(-1, frames, *x.shape[1:]).transpose(1, 2)


def draw_times(count: int, random: torch.Generator) -> Tensor:
    """Return timesteps int64 [count]."""
    odds = torch.tensor([*TIMESTEP_ODDS, 1 - sum(TIMESTEP_ODDS)])
    kind = torch.multinomial(odds, count, replacement=True, generator=random)
    anywhere = torch.randint(0, 1000, (count,), generator=random)
    return torch.where(kind < STEPS, torch.tensor([*TIMESTEPS, 0])[kind], anywhere)


def train_unet(
    clips: Sequence[Clip],
    unseen: Sequence[Clip],
    folders: tuple[Path, Path],
    plan: Plan,
    seed: int,
    batch: tuple[int, int],
) -> None:
    """Train to the plan's end. folders: of the autoencoder's run and of this one. batch: a worker's items, frames."""
    torch.manual_seed(seed)
    # On a CPU torch's flash attention has a slow backward pass, and its other one guards against rows of −∞.
    attention_torch._mix = plain_attention
    codec = make_autoencoder()
    codec.load_state_dict(averaged(folders[0]))
    task, sampler, (items, frames) = Task(codec), Sampler(clips, seed), batch
    held = task.encode(Sampler(unseen, 0, augment=False).batch(0, 0, *_CHECKED), _CHECKED[1])

    def loss(unet: nn.Module, step: int, worker: int) -> Numbers:
        random = torch.Generator().manual_seed(hash_of(seed, step, worker))
        encoded = task.encode(sampler.batch(step, worker, items, frames), frames)
        times = draw_times(items, random)
        # One noise for all frames of a chunk, as in inference.
        noise = torch.randn(encoded.target[:, :, :1].shape, generator=random).expand_as(encoded.target)
        noisy, wanted, a, s = task.noised(encoded, times, noise)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            velocity = unet(torch.cat([noisy, encoded.fixed], 1), times, encoded.tokens)
        velocity = velocity.float()
        error = task.velocity_error(velocity, wanted)
        clean = (a * noisy - s * velocity).transpose(1, 2).flatten(0, 1)
        pixels = task.pixel_error(clean, encoded.pictures)
        torch.autograd.backward(error + PIXEL_LOSS * pixels)
        return {"velocity": error.item(), "pixels": pixels.item()}

    def check(unet: nn.Module) -> Numbers:
        return measure(unet, task, held)

    Loop(make_unet(seed), folders[1], plan).run(loss, check)


@torch.no_grad()
def measure(unet: nn.Module, task: Task, held: Encoded) -> Numbers:
    """Return errors on speakers held out: of the first step, and of pictures sampled with true shapes."""
    assert isinstance(unet, UNet3D)
    random = torch.Generator().manual_seed(0)
    frames = held.target.shape[2]
    noise = torch.randn(held.target[:1, :, :1].shape, generator=random).expand_as(held.target)
    numbers = {}
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        for time in TIMESTEPS[:2]:
            times = torch.full((len(noise),), time)
            noisy, wanted, _, _ = task.noised(held, times, noise)
            velocity = unet(torch.cat([noisy, held.fixed], 1), times, held.tokens).float()
            numbers[f"unseen_velocity_{time}"] = task.velocity_error(velocity, wanted).item()
        sampling = Sampling(STEPS, 1.0, 1, window=frames, overlap=0)
        latents = torch.cat(
            [
                sample(unet, scheduler(), noise[k : k + 1], held.fixed[k : k + 1], tokens, sampling)
                for k, tokens in enumerate(torch.split(held.tokens, frames))
            ]
        )
        out = task.codec.decode(latents.transpose(1, 2).flatten(0, 1)).float()
    rows, columns = (slice(part.start * DOWNSCALE, part.stop * DOWNSCALE) for part in MOUTH_BOX)
    error = (out.clamp(-1, 1) - held.pictures)[:, :, rows, columns] / 2
    numbers["unseen_mouth_psnr"] = (-10 * error.square().mean((1, 2, 3)).log10()).mean().item()
    return numbers
