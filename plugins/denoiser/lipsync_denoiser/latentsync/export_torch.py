"""LatentSync's networks as sources of ONNX graphs; `lipsync_core.models.export_torch` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from lipsync_core.models.exported import GraphName
from lipsync_core.models.folder import ModelFolder, PatchAutoencoderPart
from lipsync_core.models.graph_torch import GraphBuilder, GraphSource
from lipsync_denoiser.latentsync.autoencoder_graph_torch import AutoencoderGraph
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder
from lipsync_denoiser.latentsync.checkpoint_torch import load_unet
from lipsync_denoiser.latentsync.chunks import AT_ONCE
from lipsync_denoiser.latentsync.patch_autoencoder_graph_torch import PatchAutoencoderGraph
from lipsync_denoiser.latentsync.unet_graph_torch import UNetGraph

_BATCH: Final = 2  # of the check, with guidance
_FRAMES: Final = 3  # of the check: not the batch, so that the two cannot be taken for each other
_TIMESTEP: Final = 501.0
_CPU: Final = torch.device("cpu")


def latentsync_graphs(folder: ModelFolder) -> Iterator[GraphSource]:
    """Yield the autoencoder's two graphs, then the U-Net's; weights are read when their turn comes."""
    yield from _autoencoder(folder)
    yield _unet(folder)


def _autoencoder(folder: ModelFolder) -> Iterator[GraphSource]:
    config, part = folder.config, folder.config.autoencoder
    side, small = config.resolution, config.resolution // part.downscale
    autoencoder = Autoencoder.load(part, folder.path(part.weights), torch.float32, _CPU, batch=AT_ONCE)

    def encode(pixels: Tensor) -> list[Tensor]:
        encoded = autoencoder.net.encode(pixels)
        if isinstance(part, PatchAutoencoderPart):
            return [encoded, torch.zeros_like(encoded)]
        return [encoded.latent_dist.mean, encoded.latent_dist.std]

    def emitter(graph: GraphBuilder) -> AutoencoderGraph | PatchAutoencoderGraph:
        if isinstance(part, PatchAutoencoderPart):
            return PatchAutoencoderGraph(graph, autoencoder.net, part, side)
        return AutoencoderGraph(graph, autoencoder.net, part, side)

    yield GraphSource(
        GraphName.VAE_ENCODER,
        lambda graph: emitter(graph).encoder(),
        encode,
        {"pixels": torch.rand(_BATCH, 3, side, side, generator=_generator()) * 2 - 1},
        {"n": (1, AT_ONCE)},
    )
    yield GraphSource(
        GraphName.VAE_DECODER,
        lambda graph: emitter(graph).decoder(),
        lambda latents: [autoencoder.decode(latents)],
        {"latents": torch.randn(_BATCH, part.latent_channels, small, small, generator=_generator())},
        {"n": (1, AT_ONCE)},
    )


def _unet(folder: ModelFolder) -> GraphSource:
    config, part = folder.config, folder.config.unet
    unet = load_unet(part, folder.path(part.weights), torch.float32, _CPU, strict=True)
    frames = _FRAMES if part.motion is None else min(_FRAMES, part.motion.max_frames)
    side = config.resolution // config.autoencoder.downscale
    random = _generator()

    def run(latents: Tensor, fixed: Tensor, timestep: Tensor, audio: Tensor) -> list[Tensor]:
        return [unet(torch.cat([latents, fixed], 1), timestep, audio)]

    return GraphSource(
        GraphName.UNET,
        lambda graph: UNetGraph(graph, unet, config).build(),
        run,
        {
            "latents": torch.randn(_BATCH, part.out_channels, frames, side, side, generator=random),
            "fixed": torch.randn(_BATCH, part.in_channels - part.out_channels, frames, side, side, generator=random),
            "timestep": torch.tensor([_TIMESTEP]),
            "audio": torch.randn(_BATCH * frames, *config.audio.feature_shape, generator=random),
        },
        {"b": (1, _BATCH), "f": (1, config.frames), "bf": (1, _BATCH * config.frames)},
    )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
