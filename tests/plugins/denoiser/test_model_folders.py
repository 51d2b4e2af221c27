"""A model folder of another make runs in the same backends: patches, three levels, mouth shapes, zoomed crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (extra torch)")
for _module in ("diffusers", "safetensors", "onnx", "onnxruntime"):
    pytest.importorskip(_module, reason=f"needs {_module} (extra export)")

from lipsync_core import landmarks as lm  # noqa: E402
from lipsync_core.api import make_stages  # noqa: E402
from lipsync_core.errors import WeightsError  # noqa: E402
from lipsync_core.models import store  # noqa: E402
from lipsync_core.models.export_torch import export_model  # noqa: E402
from lipsync_core.models.exported import Precision  # noqa: E402
from lipsync_core.models.folder import MODEL_FILE, ModelConfig, ModelFolder  # noqa: E402
from lipsync_core.models.tensors_torch import write_safetensors  # noqa: E402
from lipsync_core.registry import discover  # noqa: E402
from lipsync_core.settings import resolve  # noqa: E402
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, MouthMask  # noqa: E402
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder, blank_autoencoder  # noqa: E402
from lipsync_denoiser.latentsync.unet_torch import build_unet, initialise  # noqa: E402
from lipsync_denoiser.latentsync_onnx import LatentSyncOnnx, LatentSyncOnnxOptions  # noqa: E402
from lipsync_denoiser.latentsync_torch import LatentSyncOptions, LatentSyncTorch  # noqa: E402
from lipsync_face.fixed_mask import generate_area  # noqa: E402

torch.set_num_threads(1)
SIDE, LATENTS = 64, 6
CONFIG = ModelConfig.model_validate(
    {
        "name": "other",
        "title": "another make",
        "licence": "CC0-1.0",
        "resolution": SIDE,
        "zoom": 1.2,
        "frames": 8,
        "audio": {"kind": "mouth-shape", "reach": 1},
        "autoencoder": {"kind": "patch", "weights": "ae.safetensors", "latent_channels": LATENTS, "width": 16},
        "unet": {
            "weights": "unet.safetensors",
            "in_channels": 3 * LATENTS + 1,
            "out_channels": LATENTS,
            "block_out_channels": (32, 32, 64),
            "layers_per_block": 1,
            "attention_heads": 2,
            "cross_attention_dim": 24,
            "norm_num_groups": 8,
        },
        "scheduler": {"prediction": "v_prediction", "spacing": "trailing", "zero_terminal_snr": True},
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("other")
    write_safetensors(root / CONFIG.unet.weights, dict(build_unet(CONFIG.unet, torch.float32, "cpu", 1).state_dict()))
    autoencoder = blank_autoencoder(CONFIG.autoencoder, torch.float32)
    initialise(autoencoder, 2)
    write_safetensors(root / CONFIG.autoencoder.weights, dict(autoencoder.state_dict()))
    (root / MODEL_FILE).write_text(CONFIG.model_dump_json(), encoding="utf-8")
    return root


def test_torch_and_onnx_agree(folder: Path) -> None:
    export_model(ModelFolder.open(folder), Precision.FLOAT32)
    draw = np.random.default_rng(0)
    n = 3
    track = FaceTrack(
        0, np.tile(np.eye(2, 3), (n, 1, 1)), np.ones(n, bool), np.zeros((n, lm.COUNT, 2), np.float32), SIDE
    )
    chunk = (
        AlignedFaces(track, draw.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)),
        MouthMask(np.repeat(generate_area(SIDE)[None], n, axis=0)),
        AudioFeatures(0, draw.standard_normal((n, 3, 24), np.float32)),
        draw.standard_normal((n, 3, LATENTS, SIDE // 8, SIDE // 8), np.float32),
    )
    how = {"model": str(folder), "steps": 3, "vae": "mean"}
    by_torch = LatentSyncTorch(LatentSyncOptions.model_validate(how | {"device": "cpu", "dtype": "float32"}))
    by_onnx = LatentSyncOnnx(LatentSyncOnnxOptions.model_validate(how | {"provider": "cpu", "threads": 1}))
    for denoiser in (by_torch, by_onnx):
        assert (denoiser.feature_shape, denoiser.crop_size, denoiser.crop_zoom) == ((3, 24), SIDE, 1.2)
        assert denoiser.latent_shape == (3, LATENTS, SIDE // 8, SIDE // 8)
    want, got = by_torch.generate(*chunk).pixels, by_onnx.generate(*chunk).pixels
    assert np.abs(got - want).max() <= 1e-4
    assert np.ptp(want[chunk[1].generate > 0]) > 0.1


def test_the_aligner_takes_over_size_and_zoom(folder: Path, tmp_path: Path) -> None:
    registry = discover()
    for weight in store.status():
        if weight.path is None and not weight.weight.optional:
            pytest.skip(weight.cure)
    own = [f"job.model={folder}", "audio.backend=mouth-shape-numpy", "audio.options.reach=1"]
    for more, zoom in (([], 1.2), (["aligner.options.zoom=1.0"], 1.0)):
        settings = resolve(registry, profile="torch", overrides=own + more, environment={}, folder=tmp_path)
        values = make_stages(registry, settings)[0].values()
        assert (values["aligner.options.resolution"], values["aligner.options.zoom"]) == (SIDE, zoom)


def test_patches_there_and_back(folder: Path) -> None:
    """The linear part alone, made an orthogonal code of all of a patch, loses nothing."""
    part = CONFIG.autoencoder.model_copy(update={"patch": 2, "latent_channels": 12, "scaling_factor": 2.0})
    net = blank_autoencoder(part, torch.float32)
    initialise(net, 0)
    state = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
    state["to_latents.weight"] = torch.linalg.qr(torch.randn(12, 12))[0][:, :, None, None]
    state["to_patches.weight"] = state["to_latents.weight"].transpose(0, 1)
    net.load_state_dict(state)
    autoencoder = Autoencoder(part, net, 2)
    pictures = torch.rand(3, 3, 8, 8) * 2 - 1
    latents = autoencoder.encode(pictures, None)
    assert latents.shape == (3, 12, 4, 4)
    assert float(latents.std()) == pytest.approx(2 * float(pictures.std()), rel=0.1)
    torch.testing.assert_close(autoencoder.decode(latents), pictures)


def test_whisper_is_not_read_from_a_model_without_it() -> None:
    assert CONFIG.weights == ("ae.safetensors", "unet.safetensors")
    with pytest.raises(WeightsError, match="hears mouth shapes.*mouth-shape-numpy with reach=1"):
        _ = CONFIG.whisper
