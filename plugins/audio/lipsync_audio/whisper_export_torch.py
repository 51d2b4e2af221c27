"""Whisper's encoder as an ONNX graph; mirrors `whisper_encoder_torch`, layer for layer."""

from __future__ import annotations

from typing import Any

import torch

from lipsync_audio.log_mel import BANDS
from lipsync_audio.whisper_encoder_torch import COLUMNS, ROWS, WhisperEncoder, build
from lipsync_core.models.exported import GraphName
from lipsync_core.models.folder import ModelFolder
from lipsync_core.models.graph_torch import GraphBuilder, GraphSource
from lipsync_core.models.tensors_torch import read_checkpoint


def whisper_graph(folder: ModelFolder) -> GraphSource:
    """Return the encoder of a model folder, its weights read."""
    part = folder.config.whisper
    file = folder.path(part.weights)
    net = build(part, read_checkpoint(file).tensors, file)
    mel = torch.randn(1, BANDS, COLUMNS, generator=torch.Generator().manual_seed(0))
    return GraphSource(GraphName.WHISPER, lambda graph: emit_encoder(graph, net), lambda mel: [net(mel)], {"mel": mel})


def emit_encoder(g: GraphBuilder, net: WhisperEncoder) -> None:
    """Add the whole encoder: `mel` [1, 80, 3000] to `states` [1500, layers + 1, width]."""
    width = net.conv1.out_channels
    mel = g.to_own(g.input("mel", (1, BANDS, COLUMNS)))
    with g.scope("conv1"):
        x = g.gelu(g.conv(mel, net.conv1))
    with g.scope("conv2"):
        x = g.gelu(g.conv(x, net.conv2))
    rows = g.reshape(g.add("Transpose", x, perm=[0, 2, 1]), ROWS, width)
    rows = g.add("Add", rows, g.weight(net.positional_embedding, "positions"))
    states = [rows]
    for index, block in enumerate(net.blocks):
        with g.scope(f"blocks.{index}"):
            rows = _block(g, block, rows, width)
        states.append(rows)
    stacked = [g.reshape(state, ROWS, 1, width) for state in states]
    g.output("states", g.to_single(g.add("Concat", *stacked, axis=1)), (ROWS, len(states), width))


def _block(g: GraphBuilder, block: Any, rows: str, width: int) -> str:
    attention, (first, _, second) = block.attn, block.mlp
    h = g.layer_norm(rows, block.attn_ln)
    q, k, v = (
        g.reshape(g.linear(h, layer), 1, ROWS, width) for layer in (attention.query, attention.key, attention.value)
    )
    mixed = g.reshape(g.attention(q, k, v, attention.heads, width), ROWS, width)
    rows = g.add("Add", rows, g.linear(mixed, attention.out))
    h = g.gelu(g.linear(g.layer_norm(rows, block.mlp_ln), first))
    return g.add("Add", rows, g.linear(h, second))
