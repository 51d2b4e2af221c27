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
# Float32: MANIFEST.json. Float16: the loops' last latents have a root mean square of 3 to 12.
TOLERANCE = {Precision.FLOAT32: 3e-3, Precision.FLOAT16: 0.1}
both_precisions = pytest.mark.parametrize("precision", list(TOLERANCE))
DDIM = SchedulerPart()


@pytest.fixture(scope="module")
def unets(shared_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Session]:
    """The golden U-Net at 128 px, as its loops have it."""
    return export(tmp_path_factory.mktemp("models") / "tiny", shared_reference, 128)


@pytest.fixture(scope="module")
def odd_unets(shared_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Session]:
    """The same at 96 px, where a level has an odd side."""
    return export(tmp_path_factory.mktemp("models") / "tiny", shared_reference, 96)


def export(root: Path, reference: Path, resolution: int) -> dict[Precision, Session]:
    """For 50 audio tokens a frame."""
    write_folder(root, reference, resolution=resolution, audio=AUDIO | {"layers": 4, "weights": "whisper.pt"})
    folder = ModelFolder.open(root)
    write_pickle(root / "whisper.pt", WhisperTorch.random_whisper(folder.config.audio, 0))
    runtime = Runtime(OnnxOptions(provider="cpu", threads=1))
    return {
        precision: runtime.open(export_model(folder, precision), GraphName.UNET)
        for precision in (Precision.FLOAT32, Precision.FLOAT16)
    }


@pytest.fixture
def unet(unets: dict[Precision, Session]) -> Session:
    return unets[Precision.FLOAT32]


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


@both_precisions
@pytest.mark.parametrize(
    ("steps", "scale", "name"),
    [
        (5, 1.5, "final_latents"),
        (20, 1.5, "variant.cfg20.final_latents"),
        (3, 1.0, "variant.nocfg3.final_latents"),
        (3, 0.0, "variant.nocfg3.final_latents"),
    ],
)
def test_loops_are_the_references(
    steps: int, scale: float, name: str, precision: Precision, unets: dict[Precision, Session], golden: dict[str, Any]
) -> None:
    got = run(unets[precision], golden, steps, scale)
    assert got.dtype == np.float32
    assert got.shape == golden[name].shape
    assert np.abs(got - golden[name]).max() <= TOLERANCE[precision]


@both_precisions
@pytest.mark.parametrize("case", ["A", "B", "C", "D"])  # E is not square, as crops always are
def test_one_pass_is_the_references(
    case: str, precision: Precision, request: pytest.FixtureRequest, shared_reference: Path
) -> None:
    unets = request.getfixturevalue("odd_unets" if case == "C" else "unets")
    tensors = load_file(shared_reference / "tiny_unet_cases.safetensors")
    given = {
        name: tensors[f"{case}.{name}"].float().numpy() for name in ("sample", "timestep", "encoder_hidden_states")
    }
    (got,) = unets[precision].run(
        latents=np.ascontiguousarray(given["sample"][:, :4]),
        fixed=np.ascontiguousarray(given["sample"][:, 4:]),
        timestep=given["timestep"],
        audio=given["encoder_hidden_states"],
    )
    assert np.abs(got - tensors[f"{case}.output"].numpy()).max() <= TOLERANCE[precision]


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
