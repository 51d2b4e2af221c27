"""An autoencoder of patches: 8 × 8 pixels to 16 numbers and back, linear but for a correction at the latents' size.

Nothing is computed at the pictures' size, which makes it several times faster than diffusers' AutoencoderTiny; and its
linear part starts as a principal component analysis, so that it is good before any training.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

_LEAST: Final = 1e-9  # variance of a component


class _Residual(nn.Module):
    """Two convolutions around the input; the second starts small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(x))))
        return out


class _Correction(nn.Module):
    """What the linear part lacks: a few convolutions at the latents' size."""

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual(width) for _ in range(blocks)))
        self.conv_out = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_out(F.silu(self.blocks(self.conv_in(x))))
        return out


class PatchAutoencoder(nn.Module):
    """Pictures [n, 3, patch·h, patch·w] in −1…1 to latents [n, latent_channels, h, w] and back."""

    def __init__(self, patch: int, latent_channels: int, width: int, encoder_blocks: int, decoder_blocks: int) -> None:
        super().__init__()
        values = 3 * patch * patch
        self.patch = patch
        self.to_latents = nn.Conv2d(values, latent_channels, 1)
        self.to_patches = nn.Conv2d(latent_channels, values, 1)
        self.encoder = _Correction(values, width, latent_channels, encoder_blocks)
        self.decoder = _Correction(latent_channels, width, values, decoder_blocks)

    def encode(self, pictures: Tensor) -> Tensor:
        """Return latents."""
        patches = F.pixel_unshuffle(pictures, self.patch)
        latents: Tensor = self.to_latents(patches) + self.encoder(patches)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Return pictures, about −1…1 but not clamped."""
        return F.pixel_shuffle(self.to_patches(latents) + self.decoder(latents), self.patch)


@torch.no_grad()
def start(net: PatchAutoencoder, pictures: Tensor) -> None:
    """Make the linear part the best one for `pictures` [n, 3, H, W], and the corrections nothing.

    Components of variance λ are divided by λ^¼ and mixed evenly into the channels (a Hadamard matrix), which then all
    have variance 1: of all linear codes with that, the one whose pictures suffer least from noise on the latents.
    """
    patches = F.pixel_unshuffle(pictures, net.patch).permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = patches.mean(0)
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    count = net.to_latents.out_channels
    variances, components = variances.flip(0)[:count].clamp_min(_LEAST), components.flip(1)[:, :count]
    mix = hadamard(count) / count**0.5
    size = (count / variances.sqrt().sum()).sqrt()
    encode = size * mix @ torch.diag(variances**-0.25) @ components.T
    decode = components @ torch.diag(variances**0.25) @ mix.T / size
    _set(net.to_latents, encode, -encode @ mean)
    _set(net.to_patches, decode, mean)
    for correction in (net.encoder, net.decoder):
        for parameter in correction.conv_out.parameters():
            nn.init.zeros_(parameter)


def _set(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})


def hadamard(count: int) -> Tensor:
    """Return the matrix of Sylvester's construction, float64 [count, count] of ±1; `count` is a power of two."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < count:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
