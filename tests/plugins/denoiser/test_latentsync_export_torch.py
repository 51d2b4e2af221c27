"""LatentSync's graphs against its PyTorch networks: every length and batch, every kind of model, every precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")
pytest.importorskip("onnx", reason="needs onnx (extra export)")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from lipsync_core.errors import WeightsError  # noqa: E402
from lipsync_core.models.exported import GraphName, Precision  # noqa: E402
from lipsync_core.models.folder import ModelConfig, ModelFolder  # noqa: E402
from lipsync_core.models.graph_file_torch import write_graph  # noqa: E402
from lipsync_core.models.graph_torch import GraphBuilder, GraphSource  # noqa: E402
from lipsync_core.models.tensors_torch import write_safetensors  # noqa: E402
from lipsync_core.models.tiny import CONFIG  # noqa: E402
from lipsync_denoiser.latentsync.autoencoder_torch import blank_autoencoder  # noqa: E402
from lipsync_denoiser.latentsync.export_torch import latentsync_graphs  # noqa: E402
from lipsync_denoiser.latentsync.unet_torch import build_unet, initialise  # noqa: E402
from lipsync_denoiser.latentsync_torch import LatentSyncTorch  # noqa: E402

torch.set_num_threads(1)  # networks this small lose more at barriers than they gain
# Largest difference from PyTorch. Values are about 0.3; int8 is what it is.
TOLERANCE = {Precision.FLOAT32: 1e-4, Precision.FLOAT16: 1e-2, Precision.INT8: 0.15}
# 12 latents, then 6, 3 and 2: no level has one pixel, on which PyTorch's own float32 GroupNorm is the less exact side,
# and one size on the way up is not twice that before.
SIDE = 96
Run = Callable[..., list[Any]]

VARIANTS: dict[str, dict[str, Any]] = {
    "as tiny": {},
    "stage 1": {"motion": None},
    "decoder only": {"motion": {"decoder_only": True}},
    "mid block, two levels": {"motion": {"mid_block": True, "resolutions": (1, 4), "heads": 4, "max_frames": 9}},
    "no audio layer": {"audio_layer": False, "motion": None},
    "other sizes": {
        "block_out_channels": (32, 32, 64, 96),
        "layers_per_block": 2,
        "attention_heads": 4,
        "norm_num_groups": 8,
        "norm_eps": 1e-3,
        "motion": {"heads": 2},
    },
}


def model(
    root: Path, *, resolution: int = SIDE, latents: int = 4, vae: dict[str, Any] | None = None, **unet: Any
) -> Any:
    """Write a random model of other dimensions than the tiny one's; it lacks an audio encoder."""
    wanted = CONFIG.model_dump()
    wanted["resolution"] = resolution
    wanted["unet"] |= {"in_channels": 3 * latents + 1, "out_channels": latents, "weights": "unet.safetensors"} | unet
    wanted["autoencoder"] |= {"latent_channels": latents} | (vae or {})
    config = ModelConfig.model_validate(wanted)
    unet = build_unet(config.unet, torch.float32, "cpu", 1)
    write_safetensors(root / config.unet.weights, shaken(unet))
    autoencoder = blank_autoencoder(config.autoencoder, torch.float32)
    initialise(autoencoder, 2)
    write_safetensors(root / config.autoencoder.weights, shaken(autoencoder))
    return ModelFolder(root, config)


def shaken(net: Any) -> dict[str, Any]:
    """Return a network's weights with its norms unlike each other: they all start at ones and zeros."""
    random = torch.Generator().manual_seed(3)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=random) if value.ndim == 1 else value
        for name, value in net.state_dict().items()
    }


def source(folder: ModelFolder, name: GraphName) -> GraphSource:
    return next(graph for graph in latentsync_graphs(folder) if graph.name is name)


def opened(graph: GraphSource, folder: Path, precision: Precision, *, fused: bool = True) -> Run:
    builder = GraphBuilder(graph.name, precision, fused=fused)
    graph.emit(builder)
    write_graph(builder, folder / f"{graph.name}.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(folder / f"{graph.name}.onnx", options, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, {name: value.numpy() for name, value in inputs.items()})


def unet_inputs(config: ModelConfig, batch: int, frames: int, timestep: float) -> dict[str, Any]:
    side, random = config.resolution // config.autoencoder.downscale, torch.Generator().manual_seed(batch + frames)
    latent = config.unet.out_channels
    return {
        "latents": torch.randn(batch, latent, frames, side, side, generator=random),
        "fixed": torch.randn(batch, 2 * latent + 1, frames, side, side, generator=random),
        "timestep": torch.tensor([timestep]),
        "audio": torch.randn(batch * frames, *config.audio.feature_shape, generator=random),
    }


def worst(got: list[Any], want: list[Any]) -> float:
    for have, wanted in zip(got, want, strict=True):
        assert have.shape == tuple(wanted.shape)
        assert have.dtype == np.float32
    return max(float(np.abs(have - wanted.numpy()).max()) for have, wanted in zip(got, want, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_unet_at_every_length_and_batch(tmp_path: Path, variant: str) -> None:
    folder = model(tmp_path, **VARIANTS[variant])
    graph = source(folder, GraphName.UNET)
    run = opened(graph, tmp_path, Precision.FLOAT32)
    for batch, frames, timestep in (
        (1, 1, 999.0),
        (2, 1, 1.0),
        (1, 3, 501.0),
        (2, 3, 501.5),
        (1, 8, 20.0),
        (2, 8, 951.0),
    ):
        inputs = unet_inputs(folder.config, batch, frames, timestep)
        with torch.inference_mode():
            want = graph.run(**inputs)
        assert worst(run(**inputs), want) <= TOLERANCE[Precision.FLOAT32], (batch, frames)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "standard"])
def test_unet_in_every_precision(tmp_path: Path, precision: Precision, fused: bool) -> None:
    folder = model(tmp_path)
    graph = source(folder, GraphName.UNET)
    inputs = unet_inputs(folder.config, 2, 3, 301.0)
    with torch.inference_mode():
        want = graph.run(**inputs)
    difference = worst(opened(graph, tmp_path, precision, fused=fused)(**inputs), want)
    assert difference <= TOLERANCE[precision]
    if precision is not Precision.FLOAT32:
        assert difference > TOLERANCE[Precision.FLOAT32]


def test_the_longest_chunk_of_the_motion_modules(tmp_path: Path) -> None:
    folder = model(tmp_path, motion={"max_frames": 9})
    graph = source(folder, GraphName.UNET)
    run = opened(graph, tmp_path, Precision.FLOAT32)
    inputs = unet_inputs(folder.config, 1, 9, 5.0)
    with torch.inference_mode():
        assert worst(run(**inputs), graph.run(**inputs)) <= TOLERANCE[Precision.FLOAT32]
    with pytest.raises(Exception, match="positions|broadcast|axis"):
        run(**unet_inputs(folder.config, 1, 10, 5.0))


def test_frames_share_statistics_so_padding_would_show(tmp_path: Path) -> None:
    """What makes a dynamic length necessary: without motion modules too, frames depend on their chunk."""
    folder = model(tmp_path, motion=None)
    run = opened(source(folder, GraphName.UNET), tmp_path, Precision.FLOAT32)
    inputs = unet_inputs(folder.config, 1, 3, 5.0)
    (whole,) = run(**inputs)
    part = {"latents": inputs["latents"][:, :, :2], "fixed": inputs["fixed"][:, :, :2], "audio": inputs["audio"][:2]}
    (alone,) = run(**inputs | {name: value.contiguous() for name, value in part.items()})
    assert np.abs(whole[:, :, :2] - alone).max() > 1e-3


@pytest.mark.parametrize("name", [GraphName.VAE_ENCODER, GraphName.VAE_DECODER])
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16])
@pytest.mark.parametrize(
    ("latents", "vae"),
    [
        (4, {}),
        (6, {"block_out_channels": (8, 16), "layers_per_block": 2, "scaling_factor": 0.5, "shift_factor": 0.7}),
    ],
    ids=["as tiny", "other"],
)
def test_autoencoder(tmp_path: Path, name: GraphName, precision: Precision, latents: int, vae: dict[str, Any]) -> None:
    folder = model(tmp_path, resolution=64, latents=latents, vae=vae)
    graph = source(folder, name)
    run = opened(graph, tmp_path, precision)
    (key, like), *_ = graph.inputs.items()
    for count in (1, 3):
        inputs = {key: torch.randn(count, *like.shape[1:], generator=torch.Generator().manual_seed(count))}
        with torch.inference_mode():
            want = graph.run(**inputs)
        scale = math.sqrt(float(want[0].square().mean()))
        assert worst(run(**inputs), want) <= TOLERANCE[precision] * max(1.0, scale)


def test_the_encoders_spread_is_clamped(tmp_path: Path) -> None:
    folder = model(tmp_path, resolution=64)
    graph = source(folder, GraphName.VAE_ENCODER)
    run = opened(graph, tmp_path, Precision.FLOAT32)
    inputs = {"pixels": graph.inputs["pixels"]}
    with torch.inference_mode():
        mean, std = graph.run(**inputs)
    got = run(**inputs)
    assert std.min() > 0
    assert np.abs(got[0] - mean.numpy()).max() < 1e-4
    assert np.abs(got[1] - std.numpy()).max() < 1e-4


def test_the_inputs_of_the_check_tell_batch_from_frames(tmp_path: Path) -> None:
    graph = source(model(tmp_path), GraphName.UNET)
    batch, _, frames, *_ = graph.inputs["latents"].shape
    assert batch != frames
    assert len(graph.inputs["audio"]) == batch * frames


def test_every_open_axis_has_the_lengths_the_backend_asks_for(tmp_path: Path) -> None:
    folder = model(tmp_path)
    for graph in LatentSyncTorch.export_graphs(folder):
        builder = GraphBuilder(graph.name, Precision.FLOAT32, fused=True)
        graph.emit(builder)
        inputs, outputs = builder.shapes
        named = {dim for shape in (*inputs.values(), *outputs.values()) for dim in shape if isinstance(dim, str)}
        assert named == set(graph.lengths)
        for name, shape in inputs.items():
            assert len(shape) == graph.inputs[name].ndim
    assert graph.lengths["bf"][1] == graph.lengths["b"][1] * folder.config.frames


def test_the_backend_names_its_graphs_and_refuses_parts_that_do_not_fit(tmp_path: Path) -> None:
    folder = model(tmp_path)
    names = [graph.name for graph in LatentSyncTorch.export_graphs(folder)]
    assert names == [GraphName.VAE_ENCODER, GraphName.VAE_DECODER, GraphName.UNET]
    unet = folder.config.unet.model_copy(update={"cross_attention_dim": 32})
    with pytest.raises(WeightsError, match="audio of width 32"):
        next(LatentSyncTorch.export_graphs(ModelFolder(tmp_path, folder.config.model_copy(update={"unet": unet}))))
