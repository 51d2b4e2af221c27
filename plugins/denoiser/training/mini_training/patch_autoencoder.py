"""How the autoencoder of patches starts: as a principal component analysis, so that it is good before any training."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

from lipsync_denoiser.latentsync.patch_autoencoder_torch import PatchAutoencoder

_LEAST: Final = 1e-9  # variance of a component


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
