"""The autoencoder of patches as two ONNX graphs."""

from __future__ import annotations

from typing import Any

from lipsync_core.models.folder import PatchAutoencoderPart
from lipsync_core.models.graph_torch import GraphBuilder


class PatchAutoencoderGraph:
    """Emits the encoder or the decoder into a builder."""

    def __init__(self, graph: GraphBuilder, net: Any, part: PatchAutoencoderPart, resolution: int) -> None:
        self._graph = graph
        self._net = net
        self._part = part
        self._resolution = resolution

    def encoder(self) -> None:
        """`pixels` to `mean`, unscaled, and a `std` of zeros: it draws no samples."""
        g, part, side = self._graph, self._part, self._resolution
        small, patch = side // part.downscale, part.patch
        pixels = g.to_own(g.input("pixels", ("n", 3, side, side)))
        # What torch's pixel_unshuffle does; SpaceToDepth has another order of channels.
        split = g.reshape(pixels, 0, 3, small, patch, small, patch)
        patches = g.reshape(g.add("Transpose", split, perm=[0, 1, 3, 5, 2, 4]), 0, 3 * patch * patch, small, small)
        mean = g.to_single(self._sum(patches, self._net.to_latents, self._net.encoder, "encoder"))
        for name, value in (("mean", mean), ("std", g.add("Mul", mean, g.single(0.0)))):
            g.output(name, value, ("n", part.latent_channels, small, small))

    def decoder(self) -> None:
        """`latents`, scaled as the U-Net gives them, to `pixels`."""
        g, part, side = self._graph, self._part, self._resolution
        small = side // part.downscale
        latents = g.input("latents", ("n", part.latent_channels, small, small))
        raw = g.add("Add", g.add("Mul", latents, g.single(1 / part.scaling_factor)), g.single(part.shift_factor))
        patches = self._sum(g.to_own(raw), self._net.to_patches, self._net.decoder, "decoder")
        pixels = g.add("DepthToSpace", patches, blocksize=part.patch, mode="CRD")
        g.output("pixels", g.to_single(pixels), ("n", 3, side, side))

    def _sum(self, x: str, linear: Any, correction: Any, name: str) -> str:
        g = self._graph
        with g.scope(name):
            h = g.conv(x, correction.conv_in)
            for index, block in enumerate(correction.blocks):
                with g.scope(f"blocks.{index}"):
                    h = g.add("Add", h, g.conv(g.silu(g.conv(g.silu(h), block.conv1)), block.conv2))
            return g.add("Add", g.conv(x, linear), g.conv(g.silu(h), correction.conv_out))
