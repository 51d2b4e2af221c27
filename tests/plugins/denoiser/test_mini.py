"""The packaged model `mini`: whole, small, and the same in both runtimes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from lipsync_core import landmarks as lm
from lipsync_core.models.folder import ModelFolder
from lipsync_core.models.known import folder_of
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, MouthMask
from lipsync_denoiser.latentsync_onnx import LatentSyncOnnx, LatentSyncOnnxOptions
from lipsync_face.fixed_mask import generate_area

from .test_latentsync_usual import Scenes

SIDE, FRAMES = 128, 3
MOST_BYTES = 20_000_000  # with the audio net: what a wheel of everyone can carry


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("LIPSYNC_MODELS", raising=False)
        return folder_of("mini")


def generate(denoiser: Any, painted: int | None = None) -> NDArray[np.float32]:
    """Return crops of smooth pictures, with shapes and noise that the seed decides.

    painted: the frame whose mouth is white, as far as it is to be generated.
    """
    draw = np.random.default_rng(3)
    low = draw.integers(60, 200, (FRAMES, 4, 4, 3)).astype(np.float32)
    pixels = np.repeat(np.repeat(low, SIDE // 4, axis=1), SIDE // 4, axis=2).astype(np.uint8)
    if painted is not None:
        pixels[painted][generate_area(SIDE) == 1] = 255
    affine = np.tile(np.eye(2, 3), (FRAMES, 1, 1))
    track = FaceTrack(0, affine, np.ones(FRAMES, bool), np.zeros((FRAMES, lm.COUNT, 2), np.float32), SIDE)
    tokens = draw.standard_normal((FRAMES, *denoiser.feature_shape), np.float32)
    noise = draw.standard_normal((FRAMES, *denoiser.latent_shape), np.float32)
    mask = MouthMask(np.repeat(generate_area(SIDE)[None], FRAMES, axis=0))
    made: NDArray[np.float32] = denoiser.generate(
        AlignedFaces(track, pixels), mask, AudioFeatures(0, tokens), noise
    ).pixels
    return made


def in_onnx(folder: Path, steps: int = 2) -> LatentSyncOnnx:
    chosen = {"model": str(folder), "steps": steps, "guidance_scale": 1.0, "provider": "cpu", "threads": 1}
    return LatentSyncOnnx(LatentSyncOnnxOptions.model_validate(chosen))


def in_torch(folder: Path, steps: int = 2) -> Any:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from lipsync_denoiser.latentsync_torch import LatentSyncOptions, LatentSyncTorch

    chosen = {"model": str(folder), "steps": steps, "guidance_scale": 1.0, "device": "cpu", "dtype": "float32"}
    return LatentSyncTorch(LatentSyncOptions.model_validate(chosen))


def test_it_is_small_and_says_what_it_is(folder: Path) -> None:
    audio = [Path(str(file)) for file in files("lipsync_audio").iterdir()]
    parts = [file for file in [*folder.rglob("*"), *audio] if file.is_file() and file.suffix != ".py"]
    assert {file.suffix for file in parts} >= {".json", ".onnx", ".safetensors"}
    assert sum(file.stat().st_size for file in parts) <= MOST_BYTES
    config = ModelFolder.open(folder).config
    assert (config.name, config.resolution, config.preview) == ("mini", SIDE, True)
    assert "GRID" in config.licence


def test_both_runtimes_make_the_same_frames(folder: Path) -> None:
    onnx, torch = in_onnx(folder, steps=4), in_torch(folder, steps=4)
    ours, theirs = generate(onnx), generate(torch)
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=0.5 / 255)


def test_the_mouth_that_was_there_does_not_come_through(folder: Path) -> None:
    """No frame is shown the source's own speech: all of a scene are shown the same frame of it."""
    denoiser = in_onnx(folder)
    whole = generate(denoiser)
    np.testing.assert_allclose(generate(denoiser, painted=1), whole, atol=1e-5)
    # Nobody looked at the source: the chunk's first frame stands in.
    assert np.abs(generate(denoiser, painted=0) - whole).max() > 0.05
    denoiser.prepare(Scenes([60], np.arange(60.0), np.arange(60), SIDE))
    whole = generate(denoiser)
    for painted in range(FRAMES):
        np.testing.assert_allclose(generate(denoiser, painted=painted), whole, atol=1e-5)


def test_both_runtimes_show_the_scenes_reference(folder: Path) -> None:
    onnx, torch = in_onnx(folder), in_torch(folder)
    without = generate(onnx)
    for denoiser in (onnx, torch):
        denoiser.prepare(Scenes([60], np.arange(60.0), np.arange(60), SIDE))
    ours, theirs = generate(onnx), generate(torch)
    assert np.abs(ours - without).max() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=0.5 / 255)
    onnx.close()  # what was seen of one source is not shown to the next
    np.testing.assert_array_equal(generate(onnx), without)
