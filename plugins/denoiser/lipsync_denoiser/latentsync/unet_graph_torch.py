"""The U-Net as an ONNX graph: `unet_torch`, `blocks_torch` and `attention_torch` again, layer for layer."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import nn

from lipsync_core.models.folder import ModelConfig
from lipsync_core.models.graph_torch import GraphBuilder
from lipsync_denoiser.latentsync.picture import Picture
from lipsync_denoiser.latentsync.unet_torch import UNet3D

_LONGEST_PERIOD: Final = 10_000.0  # of the time embedding (FACTS §2)


class UNetGraph:
    """Adds a U-Net to a builder. Rows are tokens of pixels, or of audio, of all frames: [b·f·tokens, channels]."""

    def __init__(self, graph: GraphBuilder, unet: UNet3D, config: ModelConfig) -> None:
        self._graph = graph
        self._unet: Any = unet  # PyTorch's annotations do not say what a list of modules holds
        self._config = config
        self._frames = ""  # int64 [1], how many a chunk has
        self._time = ""  # the embedding after its SiLU, [b or 1, width]
        self._audio: str | None = None  # rows
        self._tokens = config.audio.feature_shape[0]  # of a frame's audio

    def build(self) -> None:
        """Add everything, from the inputs to the output; shapes as `GraphName` has them."""
        g, unet, latent = self._graph, self._unet, self._config.autoencoder.latent_channels
        side = self._config.resolution // self._config.autoencoder.downscale
        channels = unet.conv_in.in_channels
        latents = g.input("latents", ("b", latent, "f", side, side))
        fixed = g.input("fixed", ("b", channels - latent, "f", side, side))
        timestep = g.input("timestep", (1,))
        audio = g.input("audio", ("bf", self._tokens, self._config.audio.width))
        self._frames = g.add("Slice", g.add("Shape", latents), g.ints(2), g.ints(3))
        if unet.part.audio_layer:
            self._audio = g.reshape(g.to_own(audio), -1, self._config.audio.width)
        with g.scope("time_embedding"):
            self._time = self._embed(timestep)
        sample = g.to_own(g.add("Concat", latents, fixed, axis=1))
        folded = g.reshape(g.add("Transpose", sample, perm=[0, 2, 1, 3, 4]), -1, channels, side, side)
        with g.scope("conv_in"):
            x = Picture(g.conv(folded, unet.conv_in), unet.conv_in.out_channels, side)
        x = self._levels(x)
        with g.scope("conv_out"):
            out = g.conv(g.silu(self._pooled_norm(x, unet.conv_norm_out)), unet.conv_out)
        out = g.add("Transpose", g.reshape(out, -1, self._frames, latent, side, side), perm=[0, 2, 1, 3, 4])
        g.output("prediction", g.to_single(out), ("b", latent, "f", side, side))

    def _embed(self, timestep: str) -> str:
        g, net = self._graph, self._unet.time_embedding
        exponent = torch.arange(net.waves, dtype=torch.float32) / net.waves
        rate = g.single(torch.exp(-math.log(_LONGEST_PERIOD) * exponent))
        angle = g.add("Mul", g.reshape(timestep, -1, 1), rate)
        waves = g.to_own(g.add("Concat", g.add("Cos", angle), g.add("Sin", angle), axis=1))
        hidden = g.silu(g.linear(waves, net.linear_1, exact=True))
        return g.silu(g.linear(hidden, net.linear_2, exact=True))

    def _levels(self, x: Picture) -> Picture:
        g, skips = self._graph, [x]
        for index, down in enumerate(self._unet.down_blocks):
            with g.scope(f"down_blocks.{index}"):
                for layer in range(len(down.resnets)):
                    x = self._layer(down, layer, x)
                    skips.append(x)
                for shrink in down.downsamplers:
                    x = Picture(g.picture_conv(x.value, shrink.conv, x.side), x.channels, (x.side + 1) // 2)
                    skips.append(x)
        with g.scope("mid_block"):
            x = self._mid(self._unet.mid_block, x)
        for index, up in enumerate(self._unet.up_blocks):
            with g.scope(f"up_blocks.{index}"):
                for layer in range(len(up.resnets)):
                    skip = skips.pop()
                    both = g.add("Concat", x.value, skip.value, axis=1)
                    x = self._layer(up, layer, Picture(both, x.channels + skip.channels, x.side))
                for grow in up.upsamplers:
                    side = skips[-1].side
                    large = g.resize(x.value, x.side, side)
                    x = Picture(g.picture_conv(large, grow.conv, side), x.channels, side)
        return x

    def _layer(self, level: Any, index: int, x: Picture) -> Picture:
        g = self._graph
        with g.scope(f"resnets.{index}"):
            x = self._resnet(level.resnets[index], x)
        if level.attentions:
            with g.scope(f"attentions.{index}"):
                x = self._transformer(level.attentions[index], x)
        if level.motion_modules:
            with g.scope(f"motion_modules.{index}"):
                x = self._motion(level.motion_modules[index], x)
        return x

    def _mid(self, mid: Any, x: Picture) -> Picture:
        x = self._resnet(mid.resnets[0], x)
        x = self._transformer(mid.attentions[0], x)
        for module in mid.motion_modules:
            x = self._motion(module, x)
        return self._resnet(mid.resnets[1], x)

    def _resnet(self, net: Any, x: Picture) -> Picture:
        g, channels = self._graph, net.conv1.out_channels
        h = g.picture_conv(g.silu(self._pooled_norm(x, net.norm1)), net.conv1, x.side)
        # One timestep for the whole batch, so that it need not be repeated for each frame.
        time = g.reshape(g.linear(self._time, net.time_emb_proj, exact=True), -1, channels, 1, 1)
        h = g.add("Add", h, time)
        h = g.picture_conv(g.silu(self._pooled_norm(Picture(h, channels, x.side), net.norm2)), net.conv2, x.side)
        shortcut = x.value if net.conv_shortcut is None else g.picture_conv(x.value, net.conv_shortcut, x.side)
        return Picture(g.add("Add", h, shortcut), channels, x.side)

    def _pooled_norm(self, x: Picture, norm: nn.GroupNorm) -> str:
        """Normalise with statistics of all frames of a chunk, whatever their number, as `pooled_norm` does."""
        g, groups = self._graph, norm.num_groups
        values = x.channels // groups * x.side * x.side
        h = g.add("Transpose", g.reshape(x.value, -1, self._frames, groups, values), perm=[0, 2, 1, 3])
        h = g.standardise(g.reshape(h, 0, groups, -1), groups, norm.eps)
        h = g.add("Transpose", g.reshape(h, 0, groups, self._frames, values), perm=[0, 2, 1, 3])
        return g.reshape(g.affine(g.reshape(h, -1, groups, values), norm), 0, x.channels, x.side, x.side)

    def _transformer(self, net: Any, x: Picture) -> Picture:
        g, pixels = self._graph, x.side * x.side

        def to_rows(value: str) -> str:
            tokens = g.add("Transpose", g.reshape(value, 0, x.channels, pixels), perm=[0, 2, 1])
            return g.reshape(tokens, -1, x.channels)

        rows = g.norm_product(x.value, net.norm, net.proj_in, to_rows)
        for block in net.transformer_blocks:
            normed = g.layer_norm(rows, block.norm1)
            rows = g.add("Add", rows, self._attention(block.attn1, normed, normed, pixels, pixels))
            if block.attn2 is not None and self._audio is not None:
                normed = g.layer_norm(rows, block.norm2)
                rows = g.add("Add", rows, self._attention(block.attn2, normed, self._audio, pixels, self._tokens))
            rows = g.add("Add", rows, self._feed_forward(block.ff, g.layer_norm(rows, block.norm3)))
        rows = g.product(rows, net.proj_out.weight.flatten(1), net.proj_out.bias)
        picture = g.add("Transpose", g.reshape(rows, -1, pixels, x.channels), perm=[0, 2, 1])
        picture = g.reshape(picture, 0, x.channels, x.side, x.side)
        return Picture(g.add("Add", x.value, picture), x.channels, x.side)

    def _motion(self, module: Any, x: Picture) -> Picture:
        g, pixels, net = self._graph, x.side * x.side, module.temporal_transformer

        def to_rows(value: str) -> str:
            # Each pixel's frames side by side: for the attention a pixel is one sequence.
            tokens = g.reshape(value, -1, self._frames, x.channels, pixels)
            return g.reshape(g.add("Transpose", tokens, perm=[0, 3, 1, 2]), -1, x.channels)

        rows = g.norm_product(x.value, net.norm, net.proj_in, to_rows)
        for block in net.transformer_blocks:
            for norm, attention in zip(block.norms, block.attention_blocks, strict=True):
                table = g.weight(attention.pos_encoder.pe[0], "positions")
                places = g.add("Slice", table, g.ints(0), self._frames)
                normed = g.reshape(g.layer_norm(rows, norm), -1, self._frames, x.channels)
                placed = g.reshape(g.add("Add", normed, places), -1, x.channels)
                rows = g.add("Add", rows, self._attention(attention, placed, placed, self._frames, self._frames))
            rows = g.add("Add", rows, self._feed_forward(block.ff, g.layer_norm(rows, block.ff_norm)))
        rows = g.linear(rows, net.proj_out)
        picture = g.add("Transpose", g.reshape(rows, -1, pixels, self._frames, x.channels), perm=[0, 2, 3, 1])
        picture = g.reshape(picture, -1, x.channels, x.side, x.side)
        return Picture(g.add("Add", x.value, picture), x.channels, x.side)

    def _attention(self, net: Any, rows: str, context: str, queries: int | str, keys: int | str) -> str:
        """Attend; `queries` and `keys` are the lengths of a sequence of `rows` and of `context`."""
        g, width = self._graph, net.to_q.out_features
        q = g.reshape(g.linear(rows, net.to_q), -1, queries, width)
        k, v = (g.reshape(g.linear(context, layer), -1, keys, width) for layer in (net.to_k, net.to_v))
        mixed = g.reshape(g.attention(q, k, v, net.heads, width), -1, width)
        return g.linear(mixed, net.to_out[0])

    def _feed_forward(self, net: Any, rows: str) -> str:
        # The two halves of the first layer apart: so nothing is split, which would copy.
        g, first = self._graph, net.net[0].proj
        (weight, gate_weight), (bias, gate_bias) = first.weight.chunk(2), first.bias.chunk(2)
        gate = g.gelu(g.product(rows, gate_weight, gate_bias))
        return g.linear(g.add("Mul", g.product(rows, weight, bias), gate), net.net[2])
