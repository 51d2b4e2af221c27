"""Attention over a frame's pixels, over its audio tokens, and over time, with the checkpoint's own key names.

Figures: FACTS §2. Activations are [batch·frames, C, H, W], frames varying fastest; in channels-last memory every view
taken here is free.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

_MLP_RATIO: Final = 4
_FRAME_NORM_EPS: Final = 1e-6  # of the GroupNorm before a transformer
_MOTION_GROUPS: Final = 32  # whatever `norm_num_groups` says
_TEMPORAL_ATTENTIONS: Final = 2  # in a motion module
_LONGEST_PERIOD: Final = 10_000.0  # of the positional table
# Values between the two layers of a perceptron computed at once on a CPU. Whole, they are up to 335 MB, whose pages the
# system clears anew each time: a fifth of the time in float32 and half of it in bfloat16. glibc keeps blocks ≤ 32 MB.
_BLOCK_VALUES: Final = 1 << 22


class Attention(nn.Module):
    """Scaled dot-product attention of x [N, T, width] to `context` [N, S, context width], or to itself.

    slice_items: how many of the N are computed at once; None for all.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.slice_items: int | None = None
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return [N, T, width]."""
        context = x if context is None else context
        mixed = _mix(self._split(self.to_q(x)), self._split(self.to_k(context)), self._split(self.to_v(context)), self)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class PositionTable(nn.Module):
    """Sines and cosines of each frame's place in its chunk: `pe` [1, frames, width], stored in the checkpoint."""

    pe: Tensor

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.register_buffer("pe", torch.empty(1, frames, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the table: column 2j has sin(p·w_j), 2j + 1 cos(p·w_j), w_j = 10000^(−2j / width)."""
        _, frames, width = self.pe.shape
        rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(_LONGEST_PERIOD) / width))
        angle = torch.arange(frames, dtype=torch.float32)[:, None] * rate
        with torch.no_grad():
            self.pe.copy_(torch.stack([angle.sin(), angle.cos()], -1).reshape(1, frames, -1)[..., :width])


class TemporalAttention(Attention):
    """Attention of each pixel to the same pixel of the other frames: x [B, F, P, width]."""

    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__(width, width, heads)
        self.pos_encoder = PositionTable(width, frames)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return [B, F, P, width]; the table is added before the values are made too."""
        frames = x.shape[1]
        if frames > self.pos_encoder.pe.shape[1]:
            raise ValueError(f"a chunk of {frames} frames, but positions for {self.pos_encoder.pe.shape[1]}")
        x = x + self.pos_encoder.pe[:, :frames, None]
        # Pixels pass for further heads: [B, P·heads, F, head width] is a view, so nothing is moved in memory.
        q, k, v = (self._split(layer(x).flatten(2), x.shape[2]) for layer in (self.to_q, self.to_k, self.to_v))
        mixed = _mix(q, k, v, self).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out(mixed.view(x.shape))
        return out

    def _split(self, x: Tensor, pixels: int = 1) -> Tensor:
        return x.view(*x.shape[:-1], pixels * self.heads, -1).transpose(1, 2)


def _mix(q: Tensor, k: Tensor, v: Tensor, owner: Attention) -> Tensor:
    step = owner.slice_items
    if step is None or step >= len(q):
        return F.scaled_dot_product_attention(q, k, v)
    parts = (slice(i, i + step) for i in range(0, len(q), step))
    return torch.cat([F.scaled_dot_product_attention(q[p], k[p], v[p]) for p in parts])


class _GatedGelu(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * _MLP_RATIO * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return F.gelu(gate).mul_(value)


class FeedForward(nn.Module):
    """A gated two-layer perceptron; key names `net.0.proj` and `net.2`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The identity stands where training had its dropout, so that the second layer is called 2.
        self.net = nn.Sequential(_GatedGelu(width), nn.Identity(), nn.Linear(_MLP_RATIO * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        rows = _BLOCK_VALUES // (2 * _MLP_RATIO * x.shape[-1])
        if x.device.type != "cpu" or x[..., 0].numel() <= rows or torch.compiler.is_compiling():
            whole: Tensor = self.net(x)
            return whole
        flat = x.reshape(-1, x.shape[-1])
        out = torch.empty_like(flat)
        for start in range(0, len(flat), rows):
            out[start : start + rows] = self.net(flat[start : start + rows])
        return out.view(x.shape)


class _SpatialBlock(nn.Module):
    def __init__(self, width: int, heads: int, audio_width: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = None if audio_width is None else nn.LayerNorm(width)
        self.attn2 = None if audio_width is None else Attention(width, audio_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, audio: Tensor | None) -> Tensor:
        x = self.attn1(self.norm1(x)).add_(x)
        if self.norm2 is not None and self.attn2 is not None and audio is not None:
            x = self.attn2(self.norm2(x), audio).add_(x)
        out: Tensor = self.ff(self.norm3(x)).add_(x)
        return out


class SpatialTransformer(nn.Module):
    """Attention over the pixels of each frame, then over its audio tokens."""

    def __init__(self, width: int, heads: int, groups: int, audio_width: int | None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, _FRAME_NORM_EPS)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([_SpatialBlock(width, heads, audio_width)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, audio: Tensor | None) -> Tensor:
        """Take x [B·F, C, H, W] and audio [B·F, tokens, width]; return x's shape."""
        tokens = _pointwise(self.proj_in, _to_tokens(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, audio)
        return x + _to_picture(_pointwise(self.proj_out, tokens), x)


class _MotionBlock(nn.Module):
    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__()
        count = range(_TEMPORAL_ATTENTIONS)
        self.attention_blocks = nn.ModuleList([TemporalAttention(width, heads, frames) for _ in count])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in count])
        self.ff = FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = attention(norm(x)).add_(x)
        out: Tensor = self.ff(self.ff_norm(x)).add_(x)
        return out


class _TemporalTransformer(nn.Module):
    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_MOTION_GROUPS, width, _FRAME_NORM_EPS)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([_MotionBlock(width, heads, frames)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        tokens = self.proj_in(_to_tokens(self.norm(x)))
        tokens = tokens.view(-1, frames, *tokens.shape[1:])
        for block in self.transformer_blocks:
            tokens = block(tokens)
        return x + _to_picture(self.proj_out(tokens).flatten(0, 1), x)


class MotionModule(nn.Module):
    """Lets the frames of a chunk see each other."""

    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__()
        self.temporal_transformer = _TemporalTransformer(width, heads, frames)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Take x [B·frames, C, H, W]; return its shape."""
        out: Tensor = self.temporal_transformer(x, frames)
        return out


def _to_tokens(x: Tensor) -> Tensor:
    """[N, C, H, W] to [N, H·W, C]."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _to_picture(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.view(len(like), *like.shape[2:], -1).permute(0, 3, 1, 2)


def _pointwise(conv: nn.Conv2d, tokens: Tensor) -> Tensor:
    """Apply a 1 × 1 convolution to tokens [N, T, C]: the same sums as one matrix product."""
    return F.linear(tokens, conv.weight.flatten(1), conv.bias)
