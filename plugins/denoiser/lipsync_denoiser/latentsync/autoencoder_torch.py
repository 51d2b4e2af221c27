"""The latent autoencoder, AutoencoderKL of diffusers or one of patches, with a model folder's weights: FACTS §5."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from lipsync_core.errors import WeightsError
from lipsync_core.models.folder import AutoencoderPart, PatchAutoencoderPart
from lipsync_denoiser.latentsync.checkpoint_torch import check_names, read
from lipsync_denoiser.latentsync.patch_autoencoder_torch import PatchAutoencoder

# What diffusers called its attention layers before version 0.17; sd-vae-ft-mse is stored with these names.
_OLD_NAMES: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


Part = AutoencoderPart | PatchAutoencoderPart


def blank_autoencoder(part: Part, dtype: torch.dtype) -> Any:
    """Return the network without memory for its weights, on the meta device."""
    with torch.device("meta"):
        net = _make_patches(part) if isinstance(part, PatchAutoencoderPart) else _make_kl(part)
        # Not diffusers' own `to`, which warns of what this network does not have.
        return nn.Module.to(net, dtype).eval().requires_grad_(False)


def _make_kl(part: AutoencoderPart) -> Any:
    from diffusers import AutoencoderKL  # noqa: PLC0415 - a second of importing, SciPy too, that patches do not need

    levels = len(part.block_out_channels)
    make: Any = AutoencoderKL  # diffusers' annotations are partial
    return make(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=part.block_out_channels,
        layers_per_block=part.layers_per_block,
        latent_channels=part.latent_channels,
        norm_num_groups=part.norm_num_groups,
    )


def _make_patches(part: PatchAutoencoderPart) -> PatchAutoencoder:
    return PatchAutoencoder(part.patch, part.latent_channels, part.width, part.encoder_blocks, part.decoder_blocks)


class Autoencoder:
    """Pictures to latents and back, `batch` frames at a time."""

    def __init__(self, part: Part, net: Any, batch: int) -> None:
        self.net = net
        self._part = part
        self._batch = batch
        self._dtype: torch.dtype = next(net.parameters()).dtype

    @classmethod
    def load(cls, part: Part, file: Path, dtype: torch.dtype, device: torch.device, batch: int) -> Autoencoder:
        """Read the weights; raises `WeightsError` where they are not those of `part`."""
        net = blank_autoencoder(part, dtype)
        state = {modern_name(name): tensor for name, tensor in read(file, dtype, device).items()}
        wanted = net.state_dict()
        check_names(file, state.keys(), wanted.keys(), strict=True)
        for name, tensor in state.items():
            if tensor.shape != wanted[name].shape:
                raise WeightsError(
                    f"{file} has {name} of shape {list(tensor.shape)} where {list(wanted[name].shape)} belongs.",
                    "Use the model.json that belongs to this checkpoint.",
                )
        net.load_state_dict(state, assign=True)
        return cls(part, net.eval().requires_grad_(False), batch)

    def encode(self, pictures: Tensor, noise: Tensor | None) -> Tensor:
        """Return latents float32 [n, 4, h, w] of pictures [n, 3, 8h, 8w] in −1…1.

        noise: standard normal of the latents' shape, to draw a sample with; None takes the mean.
        """
        latents = []
        for rows in self._batches(len(pictures)):
            encoded = self.net.encode(pictures[rows].to(self._dtype))
            if isinstance(self._part, PatchAutoencoderPart):
                latents.append(encoded.float())
                continue
            spread = encoded.latent_dist
            latents.append(spread.mean.float())
            if noise is not None:
                latents[-1] += spread.std.float() * noise[rows]
        return (torch.cat(latents) - self._part.shift_factor) * self._part.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Return pictures float32 [n, 3, 8h, 8w], about −1…1 but not clamped."""
        raw = (latents / self._part.scaling_factor + self._part.shift_factor).to(self._dtype)
        return torch.cat([self._decoded(raw[rows]).float() for rows in self._batches(len(raw))])

    def _decoded(self, raw: Tensor) -> Tensor:
        decoded = self.net.decode(raw)
        pictures: Tensor = decoded if isinstance(self._part, PatchAutoencoderPart) else decoded.sample
        return pictures

    def _batches(self, count: int) -> list[slice]:
        return [slice(start, start + self._batch) for start in range(0, count, self._batch)]


def modern_name(name: str) -> str:
    """Return today's name of a weight."""
    head, _, tail = name.rpartition(".")
    parent, _, layer = head.rpartition(".")
    return f"{parent}.{_OLD_NAMES[layer]}.{tail}" if layer in _OLD_NAMES else name
