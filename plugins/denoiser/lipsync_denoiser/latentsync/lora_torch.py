"""Low-rank adapters (Hu et al., "LoRA", 2021): to each weight W of a network is added up · down, two thin matrices.

Not by the package peft: it wraps layers, and some of this U-Net's are used by their weights alone (`_pointwise` in
attention_torch), whose adapters it would pass over in silence; and it brings transformers and accelerate along.
torch's own parametrisation puts the sum wherever the weight is read, and leaves it there when it is removed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lipsync_denoiser.latentsync.attention_torch import MotionModule
from lipsync_denoiser.latentsync.unet_torch import UNet3D

_WEIGHT = "weight"


class LowRank(nn.Module):
    """The term added to one weight, of a linear layer or a convolution: `up` [outputs, rank] · `down` [rank, inputs].

    `up` starts at zero, so the network starts as it was. A convolution's inputs are channels × kernel.
    """

    def __init__(self, weight: Tensor, rank: int, random: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        rank = min(rank, outputs, inputs)
        down = torch.randn(rank, inputs, generator=random) * inputs**-0.5
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight."""
        return weight + (self.up @ self.down).view(weight.shape)


def add_adapters(unet: UNet3D, rank: int, seed: int) -> list[nn.Parameter]:
    """Give every linear layer and convolution an adapter, and return the adapters' parameters.

    Left as they are: what the timestep goes through, which has nothing to do with the speaker, and the motion modules,
    so that how frames follow each other stays what the model learnt from many people.
    """
    random = torch.Generator().manual_seed(seed)
    parameters: list[nn.Parameter] = []
    for layer in list(_layers(unet)):
        term = LowRank(layer.weight, rank, random)
        parametrize.register_parametrization(layer, _WEIGHT, term)
        parameters += [term.down, term.up]
    return parameters


def weakened(adapters: list[Tensor], share: float) -> list[Tensor]:
    """Return copies of adapters, in the order of `add_adapters`, that change the network by a share as much."""
    return [tensor * share if index % 2 else tensor.clone() for index, tensor in enumerate(adapters)]


def merge_adapters(unet: UNet3D) -> None:
    """Add each adapter to its weight for good: the network computes what it computed, under its own names again."""
    for layer in list(unet.modules()):
        if parametrize.is_parametrized(layer, _WEIGHT):
            parametrize.remove_parametrizations(layer, _WEIGHT, leave_parametrized=True)


def _layers(unet: UNet3D) -> Iterator[nn.Linear | nn.Conv2d]:
    frozen = {id(layer) for module in unet.modules() if isinstance(module, MotionModule) for layer in module.modules()}
    for name, layer in unet.named_modules():
        timed = "time_emb" in name  # `time_embedding` and each resnet's `time_emb_proj`
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not timed and id(layer) not in frozen:
            yield layer
