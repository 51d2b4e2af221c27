"""The denoising loop over an exported U-Net against the reference's loops (MANIFEST.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")
pytest.importorskip("onnx", reason="needs onnx (extra onnx)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from safetensors.torch import load_file  # noqa: E402

from lipsync_audio.whisper_torch import WhisperTorch  # noqa: E402
from lipsync_core.models.export_torch import export_model  # noqa: E402
from lipsync_core.models.exported import GraphName, Precision  # noqa: E402
from lipsync_core.models.folder import ModelFolder, SchedulerPart  # noqa: E402
from lipsync_core.models.session_onnx import OnnxOptions, Runtime, Session  # noqa: E402
from lipsync_core.models.tensors_torch import write_pickle  # noqa: E402
from lipsync_denoiser.latentsync.sampler_onnx import Sampling, sample  # noqa: E402
from lipsync_denoiser.latentsync.schedulers import make_scheduler  # noqa: E402

from .tiny_latentsync import AUDIO, write_folder  # noqa: E402

torch.set_num_threads(1)  # networks this small lose more at barriers than they gain
TOLERANCE = 3e-3  # MANIFEST.json
DDIM = SchedulerPart()


@pytest.fixture(scope="module")
def unet(shared_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The golden U-Net at 128 px and for 50 audio tokens a frame, as its loops have them."""
    root = tmp_path_factory.mktemp("models") / "tiny"
    write_folder(root, shared_reference, resolution=128, audio=AUDIO | {"layers": 4, "weights": "whisper.pt"})
    folder = ModelFolder.open(root)
    write_pickle(root / "whisper.pt", WhisperTorch.random_whisper(folder.config.audio, 0))
    exported = export_model(folder, Precision.FLOAT32)
    return Runtime(OnnxOptions(provider="cpu", threads=1)).open(exported, GraphName.UNET)


@pytest.fixture(scope="module")
def golden(shared_reference: Path) -> dict[str, Any]:
    return {
        name: tensor.float().numpy()
        for name, tensor in load_file(shared_reference / "tiny_unet_loop.safetensors").items()
    }


def run(
    unet: Session, golden: dict[str, Any], steps: int, scale: float = 1.5, window: int = 16, overlap: int = 0
) -> Any:
    names = ("mask_latents", "masked_image_latents", "ref_latents")
    fixed = np.concatenate([golden[name] for name in names], 1)
    sampling = Sampling(scale, window, overlap)
    scheduler = make_scheduler("ddim", DDIM, steps)
    return sample(unet, scheduler, golden["init_latents"], fixed, golden["audio_embeds"], sampling)


@pytest.mark.parametrize(
    ("steps", "scale", "name"),
    [
        (5, 1.5, "final_latents"),
        (20, 1.5, "variant.cfg20.final_latents"),
        (3, 1.0, "variant.nocfg3.final_latents"),
        (3, 0.0, "variant.nocfg3.final_latents"),
    ],
)
def test_loops_are_the_references(steps: int, scale: float, name: str, unet: Session, golden: dict[str, Any]) -> None:
    got = run(unet, golden, steps, scale)
    assert got.dtype == np.float32
    assert got.shape == golden[name].shape
    assert np.abs(got - golden[name]).max() <= TOLERANCE


@pytest.mark.parametrize("case", ["A", "B", "D"])
def test_one_pass_is_the_references(case: str, unet: Session, shared_reference: Path) -> None:
    tensors = load_file(shared_reference / "tiny_unet_cases.safetensors")
    given = {
        name: tensors[f"{case}.{name}"].float().numpy() for name in ("sample", "timestep", "encoder_hidden_states")
    }
    (got,) = unet.run(
        latents=np.ascontiguousarray(given["sample"][:, :4]),
        fixed=np.ascontiguousarray(given["sample"][:, 4:]),
        timestep=given["timestep"],
        audio=given["encoder_hidden_states"],
    )
    assert np.abs(got - tensors[f"{case}.output"].numpy()).max() <= TOLERANCE


def test_windows_without_overlap_are_independent_chunks(unet: Session, golden: dict[str, Any]) -> None:
    whole = run(unet, golden, 3, window=3)
    for part in (slice(0, 3), slice(3, 6)):
        cut = {name: value[:, :, part] for name, value in golden.items() if "latents" in name and "." not in name}
        alone = run(unet, cut | {"audio_embeds": golden["audio_embeds"][part]}, 3)
        assert np.abs(whole[:, :, part] - alone).max() <= 1e-4


def test_overlapping_windows_agree_better_than_chunks_do(unet: Session, golden: dict[str, Any]) -> None:
    undivided = run(unet, golden, 5)
    errors = [float(np.abs(run(unet, golden, 5, window=3, overlap=o) - undivided).mean()) for o in (0, 2)]
    assert errors[1] < errors[0]
