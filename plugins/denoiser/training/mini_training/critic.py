"""Texture that the mean of all likely pictures lacks: a patch critic, and the local strength of fine detail."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn
from torch.func import functional_call

# What laying a crop back takes from the finest detail (two resamplings) the decoder gives in advance: pictures that are
# real to the critic, and whose detail is aimed at, are sharpened by x − RESTORED · Laplacian(x).
RESTORED: Final = 0.06
_WINDOW: Final = 8  # px, over which the strength of detail is a mean
_FLOOR: Final = 1e-4  # of the Laplacian squared, pictures −1…1: a third of a grey level of grain
_GROUPS: Final = 8
_SLOPE: Final = 0.2


class Critic(nn.Module):
    """Says of each 18 px patch of pictures [n, 3, H, W] how real it looks (PatchGAN; Isola et al., 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.GroupNorm(_GROUPS, 2 * width),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(2 * width, 2 * width, 1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Return scores [n, 1, H/4, W/4], higher for real."""
        scores: Tensor = self.layers(pictures)
        return scores


class Contest(nn.Module):
    """A network and its critic, trained side by side as one; `maker` is what is exported."""

    def __init__(self, maker: nn.Module, critic: Critic) -> None:
        super().__init__()
        self.maker = maker
        self.critic = critic


def critic_error(critic: Critic, real: Tensor, made: Tensor) -> Tensor:
    """Return the critic's hinge loss; `made` gets no gradient."""
    return F.relu(1 - critic(real)).mean() + F.relu(1 + critic(made.detach())).mean()


def persuasion(critic: Critic, made: Tensor) -> Tensor:
    """Return the loss of whoever made the pictures; the critic gets no gradient."""
    frozen = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    scores: Tensor = functional_call(critic, frozen, (made,))
    return -scores.mean()


def laplacian(pictures: Tensor) -> Tensor:
    """Return the 3 × 3 Laplacian (centre −4) of each channel, the border repeated."""
    kernel = pictures.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(pictures.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel, groups=pictures.shape[1])


def restored(pictures: Tensor) -> Tensor:
    """Return pictures with the detail that laying them back will take away."""
    return (pictures - RESTORED * laplacian(pictures)).clamp(-1, 1)


def detail_error(made: Tensor, real: Tensor) -> Tensor:
    """Return the mean distance of the log strengths of detail in windows half overlapping."""

    def strength(pictures: Tensor) -> Tensor:
        return (F.avg_pool2d(laplacian(pictures).square(), _WINDOW, _WINDOW // 2) + _FLOOR).log()

    return (strength(made) - strength(real)).abs().mean()
