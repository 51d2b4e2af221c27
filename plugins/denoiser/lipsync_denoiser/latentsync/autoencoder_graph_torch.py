"""The latent autoencoder as two ONNX graphs: the layers of diffusers' AutoencoderKL, one by one."""

from __future__ import annotations

from typing import Any, Final

from lipsync_core.models.folder import AutoencoderPart
from lipsync_core.models.graph_torch import GraphBuilder
from lipsync_denoiser.latentsync.picture import Picture

_LOWEST_LOG, _HIGHEST_LOG = -30.0, 20.0  # diffusers clamps the logarithm of the variance to these
_AFTER: Final = (0, 0, 1, 1)  # the encoder pads right and below only before it shrinks


class AutoencoderGraph:
    """Emits the encoder or the decoder into a builder."""

    def __init__(self, graph: GraphBuilder, net: Any, part: AutoencoderPart, resolution: int) -> None:
        self._graph = graph
        self._net = net
        self._part = part
        self._resolution = resolution

    def encoder(self) -> None:
        """`pixels` to `mean` and `std`, unscaled."""
        g, net, part, side = self._graph, self._net.encoder, self._part, self._resolution
        small, latent = side // part.downscale, part.latent_channels
        pixels = g.to_own(g.input("pixels", ("n", net.conv_in.in_channels, side, side)))
        with g.scope("encoder"):
            x = Picture(g.conv(pixels, net.conv_in), net.conv_in.out_channels, side)
            for index, block in enumerate(net.down_blocks):
                with g.scope(f"down_blocks.{index}"):
                    x = self._resnets(block.resnets, x)
                    for sampler in block.downsamplers or ():
                        x = Picture(g.conv(x.value, sampler.conv, _AFTER), x.channels, x.side // 2)
            x = self._mid(net.mid_block, x)
            moments = g.conv(self._norm_silu(x, net.conv_norm_out), net.conv_out)
        moments = g.to_single(g.conv(moments, self._net.quant_conv))
        mean, log = g.add_many("Split", ("mean", "log"), moments, axis=1, num_outputs=2)
        log = g.add("Clip", log, g.single(_LOWEST_LOG), g.single(_HIGHEST_LOG))
        std = g.add("Exp", g.add("Mul", log, g.single(0.5)))
        for name, value in (("mean", mean), ("std", std)):
            g.output(name, value, ("n", latent, small, small))

    def decoder(self) -> None:
        """`latents`, scaled as the U-Net gives them, to `pixels`."""
        g, net, part, side = self._graph, self._net.decoder, self._part, self._resolution
        small = side // part.downscale
        latents = g.input("latents", ("n", part.latent_channels, small, small))
        raw = g.add("Mul", latents, g.single(1 / part.scaling_factor))
        raw = g.to_own(g.add("Add", raw, g.single(part.shift_factor)))
        x = Picture(g.conv(raw, self._net.post_quant_conv), part.latent_channels, small)
        with g.scope("decoder"):
            x = Picture(g.conv(x.value, net.conv_in), net.conv_in.out_channels, small)
            x = self._mid(net.mid_block, x)
            for index, block in enumerate(net.up_blocks):
                with g.scope(f"up_blocks.{index}"):
                    x = self._resnets(block.resnets, x)
                    for sampler in block.upsamplers or ():
                        larger = g.resize(x.value, x.side, 2 * x.side)
                        x = Picture(g.conv(larger, sampler.conv), x.channels, 2 * x.side)
            out = g.conv(self._norm_silu(x, net.conv_norm_out), net.conv_out)
        g.output("pixels", g.to_single(out), ("n", net.conv_out.out_channels, side, side))

    def _mid(self, block: Any, x: Picture) -> Picture:
        first, second = block.resnets
        x = self._resnets([first], x)
        for attention in block.attentions:
            x = self._attention(attention, x)
        return self._resnets([second], x)

    def _resnets(self, nets: Any, x: Picture) -> Picture:
        g = self._graph
        for index, net in enumerate(nets):
            with g.scope(f"resnets.{index}"):
                h = Picture(g.conv(self._norm_silu(x, net.norm1), net.conv1), net.conv1.out_channels, x.side)
                value = g.conv(self._norm_silu(h, net.norm2), net.conv2)
                shortcut = x.value if net.conv_shortcut is None else g.conv(x.value, net.conv_shortcut)
                x = Picture(g.add("Add", value, shortcut), h.channels, x.side)
        return x

    def _norm_silu(self, x: Picture, norm: Any) -> str:
        return self._graph.silu(self._graph.group_norm(x.value, norm, x.side))

    def _attention(self, net: Any, x: Picture) -> Picture:
        g, pixels = self._graph, x.side * x.side
        with g.scope("attentions"):
            normed = g.group_norm(x.value, net.group_norm, x.side)
            tokens = g.add("Transpose", g.reshape(normed, 0, x.channels, pixels), perm=[0, 2, 1])
            rows = g.reshape(tokens, -1, x.channels)
            q, k, v = (
                g.reshape(g.linear(rows, layer), -1, pixels, x.channels) for layer in (net.to_q, net.to_k, net.to_v)
            )
            mixed = g.reshape(g.attention(q, k, v, net.heads, x.channels), -1, x.channels)
            rows = g.linear(mixed, net.to_out[0])
            picture = g.add("Transpose", g.reshape(rows, -1, pixels, x.channels), perm=[0, 2, 1])
            picture = g.reshape(picture, 0, x.channels, x.side, x.side)
            return Picture(g.add("Add", picture, x.value), x.channels, x.side)
