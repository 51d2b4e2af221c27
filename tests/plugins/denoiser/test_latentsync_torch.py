"""The denoiser: LatentSync's own chunks, options, and models that do not fit."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")

from safetensors.torch import load_file  # noqa: E402

from lipsync_audio.whisper_torch import WhisperOptions, WhisperTorch  # noqa: E402
from lipsync_core import landmarks as lm  # noqa: E402
from lipsync_core.errors import BackendError, LipsyncError, SettingsError, WeightsError  # noqa: E402
from lipsync_core.media.audio import AudioSource  # noqa: E402
from lipsync_core.stages import Closable, SameStartNoise  # noqa: E402
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, MouthMask  # noqa: E402
from lipsync_denoiser.latentsync import sampler_torch  # noqa: E402
from lipsync_denoiser.latentsync_torch import LatentSyncOptions, LatentSyncTorch  # noqa: E402
from lipsync_face.fixed_mask import generate_area  # noqa: E402

from .tiny_latentsync import AUDIO, AUTOENCODER, UNET, autoencoder_part, unet_part, write_folder  # noqa: E402

torch.set_num_threads(1)  # networks this small lose more at barriers than they gain
SIDE = 64
EXACT: dict[str, Any] = {"device": "cpu", "dtype": "float32", "steps": 3, "guidance_scale": 1.5}


@dataclasses.dataclass
class Chunk:
    faces: AlignedFaces
    mask: MouthMask
    audio: AudioFeatures
    noise: NDArray[np.float32]


@pytest.fixture(scope="module")
def model(shared_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "tiny", shared_reference)


@pytest.fixture(scope="module")
def golden(shared_reference: Path) -> dict[str, Any]:
    with np.load(shared_reference / "tiny_pipeline.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def job(golden: dict[str, Any], model: Path, shared_reference: Path) -> Chunk:
    """The whole job of the golden pipeline as one chunk, with the noise the reference drew."""
    source = golden["source_frame_index"]
    count = len(source)
    pixels = np.ascontiguousarray(golden["aligned_faces_chw"].transpose(0, 2, 3, 1)[source])
    encoder = WhisperTorch(WhisperOptions(model=str(model), boundary="reference", device="cpu", dtype="float32"))
    sound = AudioSource(shared_reference / "tiny_pipeline.wav").blocks(encoder.sample_rate)
    features = np.concatenate([f.values for f in encoder.encode(sound, times=np.arange(count) / 25)])
    return make_chunk(pixels, features, _reference_noise(count, (8, 8, 8, 3)))


def _reference_noise(count: int, lengths: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw as tiny_pipeline_info.json says: the start once, then for each chunk masked and reference noise."""
    generator = torch.Generator().manual_seed(415)
    start = torch.randn((1, 4, 1, 8, 8), generator=generator)
    parts = []
    for length in lengths:
        masked, reference = (torch.randn((length, 4, 8, 8), generator=generator) for _ in range(2))
        parts.append(torch.stack([start[0, :, 0].expand_as(masked), masked, reference], 1))
    noise: NDArray[np.float32] = torch.cat(parts).numpy()
    assert len(noise) == count
    return noise


def make_chunk(pixels: NDArray[np.uint8], features: NDArray[np.float32], noise: NDArray[np.float32]) -> Chunk:
    count = len(pixels)
    affine = np.tile(np.eye(2, 3), (count, 1, 1))
    track = FaceTrack(0, affine, np.ones(count, bool), np.zeros((count, lm.COUNT, 2), np.float32), SIDE)
    mask = MouthMask(np.repeat(generate_area(SIDE)[None], count, axis=0))
    return Chunk(AlignedFaces(track, pixels), mask, AudioFeatures(0, features), noise)


def part_of(job: Chunk, rows: slice) -> Chunk:
    track, cut = job.faces.track[rows], lambda a: np.ascontiguousarray(a[rows])
    return Chunk(
        AlignedFaces(track, cut(job.faces.pixels)),
        MouthMask(cut(job.mask.generate)),
        AudioFeatures(track.start, cut(job.audio.values)),
        cut(job.noise),
    )


def generate(denoiser: LatentSyncTorch, chunk: Chunk) -> NDArray[np.float32]:
    return denoiser.generate(chunk.faces, chunk.mask, chunk.audio, chunk.noise).pixels


def test_every_chunk_is_the_references(
    golden: dict[str, Any], job: Chunk, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT))
    assert denoiser.max_frames == 8
    seen: dict[str, Any] = {}
    real = sampler_torch.sample

    def watched(unet: Any, scheduler: Any, start: Any, fixed: Any, *rest: Any) -> Any:
        seen.update(start=start, fixed=fixed, final=real(unet, scheduler, start, fixed, *rest))
        return seen["final"]

    monkeypatch.setattr("lipsync_denoiser.latentsync_torch.sample", watched)
    for number, first in enumerate(range(0, len(job.noise), 8)):
        pixels = generate(denoiser, part_of(job, slice(first, first + 8)))
        assert np.abs(seen["start"][:, :, :1].numpy() - golden["all_latents_first_frame"]).max() <= 1e-6
        mask, masked, reference = seen["fixed"].numpy()[:, :1], seen["fixed"][:, 1:5], seen["fixed"][:, 5:]
        assert np.abs(mask[:, :, :1] - golden["mask_latents_one_frame"]).max() <= 1e-6
        assert np.abs(masked.numpy() - golden[f"chunk{number}.masked_image_latents"]).max() <= 5e-3
        assert np.abs(reference.numpy() - golden[f"chunk{number}.ref_latents"]).max() <= 5e-3
        # MANIFEST.json allows .05 for faces aligned anew; these are the reference's own.
        assert np.abs(seen["final"].numpy() - golden[f"chunk{number}.final_latents"]).mean() <= 0.005
        if number in (0, 3):
            combined = golden[f"chunk{number}.combined_last_frame"].transpose(1, 2, 0) / 2 + 0.5
            assert np.abs(pixels[-1] - combined).max() <= 0.01


def test_kept_pixels_are_the_faces_own(job: Chunk, model: Path) -> None:
    chunk = part_of(job, slice(0, 2))
    pixels = generate(LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT)), chunk)
    kept = chunk.mask.generate == 0
    assert np.abs(pixels[kept] - chunk.faces.pixels[kept] / 255).max() < 1e-6
    assert np.abs(pixels[~kept] - chunk.faces.pixels[~kept] / 255).mean() > 0.02


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        # Another order of summing: where the deepest level is one pixel, its GroupNorm divides by next to nothing.
        ({"vae_slicing": True}, 1e-3),
        ({"channels_last": False}, 1e-3),
        ({"attention_slicing": 1}, 1e-4),
        ({"cpu_offload": True}, 1e-6),
        ({"dtype": "bfloat16"}, 0.1),
    ],
)
def test_options_that_save_memory_change_nothing_else(
    changes: dict[str, Any], tolerance: float, job: Chunk, model: Path
) -> None:
    chunk = part_of(job, slice(0, 3))
    want = generate(LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT)), chunk)
    got = generate(LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT | changes)), chunk)
    assert np.abs(got - want).max() <= tolerance
    assert got.dtype == np.float32


@pytest.mark.parametrize("changes", [{"vae": "mean"}, {"guidance_scale": 1.0}, {"steps": 2}, {"scheduler": "unipc"}])
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers with NumPy 2
def test_options_that_change_the_picture_do(changes: dict[str, Any], job: Chunk, model: Path) -> None:
    chunk = part_of(job, slice(0, 2))
    want = generate(LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT)), chunk)
    got = generate(LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT | changes)), chunk)
    assert np.isfinite(got).all()
    assert np.abs(got - want).max() > 1e-3


def test_the_mean_needs_no_noise_of_its_own(job: Chunk, model: Path) -> None:
    chunk = part_of(job, slice(0, 2))
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(model), vae="mean", **EXACT))
    want = generate(denoiser, chunk)
    other = chunk.noise.copy()
    other[:, 1:] += 1
    assert (generate(denoiser, dataclasses.replace(chunk, noise=other)) == want).all()


def test_overlapping_windows_make_longer_chunks(job: Chunk, model: Path) -> None:
    options = LatentSyncOptions(model=str(model), chunk_overlap=4, cache="deepcache", cache_interval=2, **EXACT)
    denoiser = LatentSyncTorch(options)
    assert denoiser.max_frames == 8 + 7 * 4
    pixels = generate(denoiser, job)
    assert pixels.shape == (27, SIDE, SIDE, 3)
    assert np.isfinite(pixels).all()


def test_weights_are_read_once_and_let_go(job: Chunk, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lipsync_denoiser")
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT))
    chunk = part_of(job, slice(0, 1))
    assert not caplog.records
    want = generate(denoiser, chunk)
    assert (generate(denoiser, chunk) == want).all()
    assert len(caplog.records) == 1
    denoiser.close()
    denoiser.close()
    assert (generate(denoiser, chunk) == want).all()
    assert len(caplog.records) == 2


def test_compile_is_asked_for_both_passes(job: Chunk, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler at hand: what is compiled, not that PyTorch can."""
    compiled: list[str] = []
    called: list[str] = []

    def compile_(method: Any) -> Any:
        name = method.__name__
        compiled.append(name)
        return lambda *args: (called.append(name), method(*args))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    cached: dict[str, Any] = EXACT | {"cache": "deepcache", "cache_interval": 2}
    chunk = part_of(job, slice(0, 2))
    want = generate(LatentSyncTorch(LatentSyncOptions(model=str(model), **cached)), chunk)
    got = generate(LatentSyncTorch(LatentSyncOptions(model=str(model), compile=True, **cached)), chunk)
    assert compiled == ["full", "shallow"]
    assert called == ["full", "shallow", "full"]
    assert (got == want).all()


def test_what_the_pipeline_reads(model: Path) -> None:
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(model), device="cpu"))
    assert denoiser.feature_shape == (30, 64)
    assert denoiser.crop_size == SIDE
    assert denoiser.latent_shape == (3, 4, 8, 8)
    assert isinstance(denoiser, SameStartNoise)
    assert denoiser.same_start_noise
    assert isinstance(denoiser, Closable)


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 2 GiB", "can't allocate memory: 123 bytes"])
def test_running_out_of_memory_says_what_to_turn(
    text: str, job: Chunk, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr("lipsync_denoiser.latentsync_torch.sample", fail)
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(model), vae_slicing=True, **EXACT))
    with pytest.raises(BackendError, match="out of memory on cpu") as caught:
        generate(denoiser, part_of(job, slice(0, 1)))
    assert caught.value.cure == "Set attention_slicing=1, then dtype=bfloat16, then guidance_scale=1."


@pytest.mark.parametrize(("options", "most"), [({}, 4), ({"vae_slicing": True}, 1)])
def test_the_autoencoder_takes_a_few_frames_at_once(
    options: dict[str, Any], most: int, job: Chunk, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = LatentSyncTorch(LatentSyncOptions.model_validate({"model": str(model), **EXACT, **options}))
    net, seen = denoiser._loaded().autoencoder.net, []
    for name in ("encode", "decode"):
        real = getattr(net, name)
        monkeypatch.setattr(net, name, lambda x, real=real: seen.append(len(x)) or real(x))
    generate(denoiser, part_of(job, slice(0, 6)))
    assert max(seen) == most
    assert sum(seen) == 3 * 6  # masked and whole faces encoded, and what was generated decoded


def test_other_errors_keep_their_kind(job: Chunk, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("lipsync_denoiser.latentsync_torch.sample", fail)
    with pytest.raises(RuntimeError, match="something else"):
        generate(LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT)), part_of(job, slice(0, 1)))


def test_without_noise_there_is_no_start(job: Chunk, model: Path) -> None:
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(model), **EXACT))
    with pytest.raises(BackendError, match="no noise"):
        denoiser.generate(job.faces, job.mask, job.audio, None)


@pytest.mark.parametrize(
    ("changes", "options", "kind", "text"),
    [
        ({"unet": UNET | {"in_channels": 9}}, {}, WeightsError, "takes 13"),
        ({"autoencoder": AUTOENCODER | {"latent_channels": 16}}, {}, WeightsError, "takes 49"),
        ({"audio": AUDIO | {"width": 32}}, {}, WeightsError, "width 64, but the encoder gives 32"),
        ({"frames": 25}, {}, WeightsError, "25 frames is longer than the 24"),
        ({"autoencoder": AUTOENCODER | {"block_out_channels": (16,) * 8}}, {}, WeightsError, "multiple of 128 px"),
        ({}, {"chunk_overlap": 8}, SettingsError, "not less than the 8 frames"),
        ({}, {"device": "cuda:9"}, SettingsError, "cuda:9"),
        ({}, {"device": "cpu"}, WeightsError, "lacks tiny_unet.safetensors"),
    ],
)
def test_parts_that_do_not_fit_are_errors_at_once(
    changes: dict[str, Any], options: dict[str, Any], kind: type[LipsyncError], text: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "model", **changes)
    with pytest.raises(kind, match=text):
        LatentSyncTorch(LatentSyncOptions(model=str(folder), **options))


def test_random_weights_are_those_of_a_checkpoint(shared_reference: Path) -> None:
    unet = LatentSyncTorch.random_unet(unet_part(), 1)
    autoencoder = LatentSyncTorch.random_autoencoder(autoencoder_part(), 1)
    for state, file in ((unet, UNET["weights"]), (autoencoder, AUTOENCODER["weights"])):
        want = load_file(shared_reference / file)
        assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in want.items()}
        assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in state.values())
    again = LatentSyncTorch.random_autoencoder(autoencoder_part(), 1)
    assert all(torch.equal(again[name], tensor) for name, tensor in autoencoder.items())
