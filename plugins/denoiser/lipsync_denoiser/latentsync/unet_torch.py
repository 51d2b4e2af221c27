"""LatentSync's 3-D U-Net, built from its description; key names, shapes and arithmetic as FACTS §1–2."""

from __future__ import annotations

import math
from typing import Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

from lipsync_core.models.folder import UNetPart
from lipsync_denoiser.latentsync.attention_torch import Attention, MotionModule
from lipsync_denoiser.latentsync.blocks_torch import DownLevel, MidLevel, UpLevel, embedding_width, pooled_norm, unfold

_LONGEST_PERIOD: Final = 10_000.0  # of the time embedding


class _TimeEmbedding(nn.Module):
    """Cosines, then sines, of the timestep, and two layers."""

    def __init__(self, part: UNetPart) -> None:
        super().__init__()
        self.waves = part.block_out_channels[0] // 2
        self.linear_1 = nn.Linear(part.block_out_channels[0], embedding_width(part))
        self.linear_2 = nn.Linear(embedding_width(part), embedding_width(part))

    def forward(self, timesteps: Tensor) -> Tensor:
        """Take [B], return [B, width]."""
        exponent = torch.arange(self.waves, dtype=torch.float32, device=timesteps.device) / self.waves
        angle = timesteps.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponent)
        waves = torch.cat([angle.cos(), angle.sin()], -1).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return out


class UNet3D(nn.Module):
    """Predicts the noise in a chunk of latents [B, 4, F, H, W] from [B, 13, F, H, W] and the audio of each frame."""

    def __init__(self, part: UNetPart) -> None:
        super().__init__()
        channels, layers, motion = part.block_out_channels, part.layers_per_block, part.motion
        deepest = len(channels) - 1

        def moves(level: int, *, down: bool) -> bool:
            return motion is not None and 2**level in motion.resolutions and not (down and motion.decoder_only)

        self.part = part
        self.conv_in = nn.Conv2d(part.in_channels, channels[0], 3, padding=1)
        self.time_embedding = _TimeEmbedding(part)
        downs, skips, width = [], [channels[0]], channels[0]
        for level, out in enumerate(channels):
            widths = [(width if index == 0 else out, out) for index in range(layers)]
            flags = {"attends": level < deepest, "moves": moves(level, down=True), "shrinks": level < deepest}
            downs.append(DownLevel(widths, part, **flags))
            skips += [out] * (layers + (level < deepest))
            width = out
        self.down_blocks = nn.ModuleList(downs)
        self.mid_block = MidLevel(width, part)
        ups = []
        for level in reversed(range(len(channels))):
            widths = []
            for _ in range(layers + 1):
                widths.append((width + skips.pop(), channels[level]))
                width = channels[level]
            flags = {"attends": level < deepest, "moves": moves(level, down=False), "grows": level > 0}
            ups.append(UpLevel(widths, part, **flags))
        self.up_blocks = nn.ModuleList(ups)
        self.conv_norm_out = nn.GroupNorm(part.norm_num_groups, width, part.norm_eps)
        self.conv_out = nn.Conv2d(width, part.out_channels, 3, padding=1)

    def forward(self, sample: Tensor, timesteps: Tensor, audio: Tensor | None) -> Tensor:
        """Return the prediction [B, 4, F, H, W].

        sample: [B, 13, F, H, W], noisy, mask, masked-image and reference latents. timesteps: [B] or [1].
        audio: [B·F, tokens, width], frames varying fastest; None skips the attention to it.
        Raises `ValueError` where F is more than the motion modules have positions for.
        """
        return self.full(sample, timesteps, audio)[0]

    def full(self, sample: Tensor, timesteps: Tensor, audio: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the prediction, and what `shallow` reuses: the input of the last layer."""
        frames, time = sample.shape[2], self.time_embedding(timesteps.expand(len(sample)))
        x = self.conv_in(self._fold(sample))
        skips = [x]
        for block in self.down_blocks:
            x = block(x, time, audio, frames, skips)
        x = self.mid_block(x, time, audio, frames)
        for block in self.up_blocks[:-1]:
            x = block(x, time, audio, frames, skips)
        last = self._last()
        for index in range(len(last.resnets) - 1):
            x = last.layer(index, torch.cat([x, skips.pop()], 1), time, audio, frames)
        return self._last_layer(x, skips.pop(), time, audio, frames), x

    def shallow(self, sample: Tensor, timesteps: Tensor, audio: Tensor | None, deep: Tensor) -> Tensor:
        """Return a prediction that reuses `deep` of an earlier step and computes the first and last layer only.

        Ma, Fang and Wang, "DeepCache" (2023), branch 0. Motion modules depend on nothing but their input, so
        keeping the output of the last but one is the same as running it again, as the reference does (FACTS §3).
        """
        frames, time = sample.shape[2], self.time_embedding(timesteps.expand(len(sample)))
        return self._last_layer(deep, self.conv_in(self._fold(sample)), time, audio, frames)

    def _last_layer(self, x: Tensor, skip: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        last = self._last()
        x = last.layer(len(last.resnets) - 1, torch.cat([x, skip], 1), time, audio, frames)
        x = self.conv_out(F.silu(pooled_norm(self.conv_norm_out, x, frames), inplace=True))
        return unfold(x, frames)

    def _last(self) -> UpLevel:
        return cast(UpLevel, self.up_blocks[-1])

    def _fold(self, sample: Tensor) -> Tensor:
        """[B, C, F, H, W] to [B·F, C, H, W], in the memory order of the weights."""
        folded = sample.transpose(1, 2).flatten(0, 1)
        if self.conv_in.weight.is_contiguous(memory_format=torch.channels_last):
            return folded.contiguous(memory_format=torch.channels_last)
        return folded.contiguous()

    def compile_passes(self) -> None:
        """Compile `full` and `shallow`; the work is done at the first call of each, and again for another length."""
        self.full = torch.compile(self.full)  # type: ignore[method-assign] # the compiled one takes its place
        self.shallow = torch.compile(self.shallow)  # type: ignore[method-assign] # the compiled one takes its place

    def slice_attention(self, items: int | None) -> None:
        """Compute each attention for at most `items` of its batch at once; None for all."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.slice_items = items


def blank_unet(part: UNetPart, dtype: torch.dtype) -> UNet3D:
    """Return the U-Net without memory for its weights, on the meta device."""
    with torch.device("meta"):
        return UNet3D(part).to(dtype).eval().requires_grad_(False)


def build_unet(part: UNetPart, dtype: torch.dtype, device: torch.device | str, seed: int | None = None) -> UNet3D:
    """Return a U-Net with random weights in `dtype`; the same `seed` gives the same ones everywhere.

    Every layer has its usual random start, those the reference starts at zero included (see `zero_start`).
    """
    unet = blank_unet(part, dtype)
    initialise(unet, seed)
    return unet.to(device)


def initialise(module: nn.Module, seed: int | None) -> None:
    """Give every layer of a module on the meta device memory on the CPU and its usual random start.

    Drawn in float32, a layer at a time, so a seed gives the same weights in each dtype but for rounding.
    """
    dtype = next(module.parameters()).dtype
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        for layer in module.modules():
            reset = getattr(layer, "reset_parameters", None)
            if reset is not None:
                layer.to(torch.float32).to_empty(device="cpu", recurse=False)
                reset()
                layer.to(dtype)


def zero_start(unet: UNet3D) -> None:
    """Zero the layers that start at zero in training: both ends, and the output of each motion module."""
    ends: list[nn.Module] = [unet.conv_in, unet.conv_out]
    ends += [m.temporal_transformer.proj_out for m in unet.modules() if isinstance(m, MotionModule)]
    for layer in ends:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def channels_last(module: nn.Module) -> None:
    """Lay every convolution's weights out with the channels innermost; activations follow them."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks this form
