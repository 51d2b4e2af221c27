"""Resnets and the levels of the U-Net, with the checkpoint's own key names. Figures: FACTS §2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

from lipsync_core.models.folder import UNetPart
from lipsync_denoiser.latentsync.attention_torch import MotionModule, SpatialTransformer


def pooled_norm(norm: nn.GroupNorm, x: Tensor, frames: int) -> Tensor:
    """Normalise x [B·frames, C, H, W] with statistics pooled over the frames of each chunk.

    So a frame's result depends on the other frames of its chunk, with or without motion modules.
    """
    pooled: Tensor = norm(unfold(x, frames))
    return pooled.transpose(1, 2).flatten(0, 1)


def unfold(x: Tensor, frames: int) -> Tensor:
    """[B·frames, C, H, W] to [B, C, frames, H, W]."""
    return x.view(-1, frames, *x.shape[1:]).transpose(1, 2)


class Resnet(nn.Module):
    """Two convolutions around the time embedding, plus the input."""

    def __init__(self, inputs: int, outputs: int, part: UNetPart) -> None:
        super().__init__()
        groups, eps = part.norm_num_groups, part.norm_eps
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding_width(part), outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor, frames: int) -> Tensor:
        """Take x [B·frames, inputs, H, W] and time [B, width]; return [B·frames, outputs, H, W]."""
        h = self.conv1(F.silu(pooled_norm(self.norm1, x, frames), inplace=True))
        h += self.time_emb_proj(F.silu(time)).repeat_interleave(frames, 0)[:, :, None, None]
        h = self.conv2(F.silu(pooled_norm(self.norm2, h, frames), inplace=True))
        h += x if self.conv_shortcut is None else self.conv_shortcut(x)
        out: Tensor = h
        return out


class _Conv(nn.Module):
    """A 3 × 3 convolution whose key names end in `conv`."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Level(nn.Module):
    """Layers at one size, each a resnet, then a spatial transformer and a motion module where the level has them."""

    def __init__(self, widths: Sequence[tuple[int, int]], part: UNetPart, *, attends: bool, moves: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(inputs, outputs, part) for inputs, outputs in widths])
        outputs = [width for _, width in widths]
        self.attentions = nn.ModuleList([transformer(width, part) for width in outputs] if attends else [])
        self.motion_modules = nn.ModuleList([motion_module(width, part) for width in outputs] if moves else [])

    def layer(self, index: int, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """Run one layer on x [B·frames, C, H, W]."""
        x = self.resnets[index](x, time, frames)
        if self.attentions:
            x = self.attentions[index](x, audio)
        if self.motion_modules:
            x = self.motion_modules[index](x, frames)
        return x


class DownLevel(Level):
    """A level of the encoder; pushes each layer's output, and the smaller picture, on the stack of skips."""

    def __init__(
        self, widths: Sequence[tuple[int, int]], part: UNetPart, *, attends: bool, moves: bool, shrinks: bool
    ) -> None:
        super().__init__(widths, part, attends=attends, moves=moves)
        self.downsamplers = nn.ModuleList([_Conv(widths[-1][1], 2)] if shrinks else [])

    def forward(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int, skips: list[Tensor]) -> Tensor:
        """Return the last of what it pushed."""
        for index in range(len(self.resnets)):
            x = self.layer(index, x, time, audio, frames)
            skips.append(x)
        for shrink in self.downsamplers:
            x = shrink(x)
            skips.append(x)
        return x


class UpLevel(Level):
    """A level of the decoder; each layer takes a skip off the stack."""

    def __init__(
        self, widths: Sequence[tuple[int, int]], part: UNetPart, *, attends: bool, moves: bool, grows: bool
    ) -> None:
        super().__init__(widths, part, attends=attends, moves=moves)
        self.upsamplers = nn.ModuleList([_Conv(widths[-1][1], 1)] if grows else [])

    def forward(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int, skips: list[Tensor]) -> Tensor:
        """Return the level's output, at the size of the next skip where the level grows."""
        for index in range(len(self.resnets)):
            x = self.layer(index, torch.cat([x, skips.pop()], 1), time, audio, frames)
        for grow in self.upsamplers:
            # The next skip's size is twice this one's, or one less where the picture is no multiple of 8.
            x = grow(F.interpolate(x, size=skips[-1].shape[2:], mode="nearest"))
        return x


class MidLevel(nn.Module):
    """Resnet, transformer, motion module where configured, resnet."""

    def __init__(self, width: int, part: UNetPart) -> None:
        super().__init__()
        moves = part.motion is not None and part.motion.mid_block
        self.resnets = nn.ModuleList([Resnet(width, width, part) for _ in range(2)])
        self.attentions = nn.ModuleList([transformer(width, part)])
        self.motion_modules = nn.ModuleList([motion_module(width, part)] if moves else [])

    def forward(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """Take and return [B·frames, C, H, W]."""
        x = self.attentions[0](self.resnets[0](x, time, frames), audio)
        for module in self.motion_modules:
            x = module(x, frames)
        out: Tensor = self.resnets[1](x, time, frames)
        return out


def embedding_width(part: UNetPart) -> int:
    """Width of the time embedding."""
    return 4 * part.block_out_channels[0]


def transformer(width: int, part: UNetPart) -> SpatialTransformer:
    """Make a spatial transformer as `part` has them."""
    audio_width = part.cross_attention_dim if part.audio_layer else None
    return SpatialTransformer(width, part.attention_heads, part.norm_num_groups, audio_width)


def motion_module(width: int, part: UNetPart) -> MotionModule:
    """Make a motion module as `part` has them."""
    if part.motion is None:
        raise ValueError("this model has no motion modules")
    return MotionModule(width, part.motion.heads, part.motion.max_frames)
