"""`latentsync-onnx` against its torch twin and LatentSync's own chunks, and what it does that they do not."""

from __future__ import annotations

import dataclasses
import gc
import logging
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from lipsync_core import landmarks as lm
from lipsync_core.errors import BackendError, LipsyncError, SettingsError, WeightsError
from lipsync_core.models.session_onnx import NoMemoryError, Session
from lipsync_core.registry import State, discover
from lipsync_core.stages import Closable, OfModel, SameStartNoise
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, MouthMask
from lipsync_denoiser import latentsync_onnx
from lipsync_denoiser.latentsync_onnx import LatentSyncOnnx, LatentSyncOnnxOptions
from lipsync_face.fixed_mask import generate_area

SIDE = 64
TOLERANCE = 1e-4  # of torch's float32 result


@dataclasses.dataclass
class Chunk:
    faces: AlignedFaces
    mask: MouthMask
    audio: AudioFeatures
    noise: NDArray[np.float32]

    def arrays(self) -> list[NDArray[Any]]:
        return [self.faces.pixels, self.mask.generate, self.audio.values, self.noise]


def make_chunk(count: int, seed: int = 0) -> Chunk:
    draw = np.random.default_rng(seed)
    affine = np.tile(np.eye(2, 3), (count, 1, 1))
    track = FaceTrack(0, affine, np.ones(count, bool), np.zeros((count, lm.COUNT, 2), np.float32), SIDE)
    return Chunk(
        AlignedFaces(track, draw.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)),
        MouthMask(np.repeat(generate_area(SIDE)[None], count, axis=0)),
        AudioFeatures(0, draw.standard_normal((count, 30, 64), np.float32)),
        draw.standard_normal((count, 3, 4, 8, 8), np.float32),
    )


def make(model: Path, **options: Any) -> LatentSyncOnnx:
    return LatentSyncOnnx(
        LatentSyncOnnxOptions.model_validate(
            {"model": str(model), "provider": "cpu", "threads": 1, "steps": 3} | options
        )
    )


def generate(denoiser: Any, chunk: Chunk) -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = denoiser.generate(chunk.faces, chunk.mask, chunk.audio, chunk.noise).pixels
    return pixels


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (1, {}),
        (3, {}),
        (8, {}),
        (3, {"guidance_scale": 1.0}),
        (8, {"guidance_scale": 0.5, "vae": "mean"}),
        (1, {"scheduler": "dpmsolver++"}),
        (8, {"scheduler": "dpmsolver++", "guidance_scale": 2.5, "steps": 5}),
        (20, {"chunk_overlap": 3}),
        (13, {"chunk_overlap": 5, "guidance_scale": 1.0}),
    ],
)
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers with NumPy 2
def test_torch_gives_the_same(count: int, changes: dict[str, Any], exported_tiny: Path) -> None:
    from lipsync_denoiser.latentsync_torch import LatentSyncOptions, LatentSyncTorch

    chunk = make_chunk(count)
    options = {"model": str(exported_tiny), "device": "cpu", "dtype": "float32", "steps": 3} | changes
    twin, ours = LatentSyncTorch(LatentSyncOptions.model_validate(options)), make(exported_tiny, **changes)
    got = generate(ours, chunk)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert np.abs(got - generate(twin, chunk)).max() <= TOLERANCE
    for name in ("feature_shape", "crop_size", "max_frames", "latent_shape", "same_start_noise", "model_name"):
        assert getattr(ours, name) == getattr(twin, name)


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 5e-3), ("int8", 5e-2)])
def test_other_precisions_are_near(precision: str, tolerance: float, exported_tiny: Path, tmp_path: Path) -> None:
    """Each is what `auto` takes where it alone is exported."""
    from lipsync_core.models.export_torch import export_model
    from lipsync_core.models.exported import Precision
    from lipsync_core.models.folder import ModelFolder

    root, chunk = tmp_path / "model", make_chunk(3)
    export_model(ModelFolder.open(exported_tiny), Precision(precision), root=root)
    error = np.abs(generate(make(root), chunk) - generate(make(exported_tiny), chunk)).max()
    assert 1e-5 < error <= tolerance


# Largest difference of masked and reference latents, mean of the last latents, largest of the pixels in −1…1.
@pytest.mark.parametrize(
    ("precision", "encoded", "final", "pixels"), [("float32", 5e-3, 5e-3, 0.02), ("float16", 2e-2, 1e-2, 0.05)]
)
def test_every_chunk_is_the_references(
    exported_golden: Path,
    shared_reference: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    encoded: float,
    final: float,
    pixels: float,
) -> None:
    """The golden pipeline's chunks, with the noise the reference drew, all in ONNX Runtime."""
    from lipsync_audio.whisper_onnx import WhisperOnnx, WhisperOnnxOptions
    from lipsync_core.media.audio import AudioSource

    with np.load(shared_reference / "tiny_pipeline.npz") as arrays:
        golden = dict(arrays)
    source = golden["source_frame_index"]
    crops = golden["aligned_faces_chw"].transpose(0, 2, 3, 1)[source]
    options = {"model": str(exported_golden), "precision": precision, "boundary": "reference", "threads": 1}
    encoder = WhisperOnnx(WhisperOnnxOptions.model_validate(options))
    sound = AudioSource(shared_reference / "tiny_pipeline.wav").blocks(encoder.sample_rate)
    features = np.concatenate([f.values for f in encoder.encode(sound, times=np.arange(len(source)) / 25)])
    noise = _reference_noise(len(source))
    seen: dict[str, Any] = {}
    real = latentsync_onnx.sample

    def watched(unet: Any, scheduler: Any, start: Any, fixed: Any, *rest: Any) -> Any:
        seen.update(start=start, fixed=fixed, final=real(unet, scheduler, start, fixed, *rest))
        return seen["final"]

    monkeypatch.setattr(latentsync_onnx, "sample", watched)
    denoiser = make(exported_golden, precision=precision)
    for number, first in enumerate(range(0, len(source), 8)):
        rows = slice(first, first + 8)
        chunk = make_chunk(len(noise[rows]))
        chunk.faces = AlignedFaces(chunk.faces.track, np.ascontiguousarray(crops[rows]))
        chunk.audio, chunk.noise = AudioFeatures(first, features[rows].copy()), noise[rows]
        combined = generate(denoiser, chunk)[-1] * 2 - 1
        mask, masked, reference = seen["fixed"][:, :1], seen["fixed"][:, 1:5], seen["fixed"][:, 5:]
        assert np.abs(mask[:, :, :1] - golden["mask_latents_one_frame"]).max() <= 1e-6
        assert np.abs(masked - golden[f"chunk{number}.masked_image_latents"]).max() <= encoded
        assert np.abs(reference - golden[f"chunk{number}.ref_latents"]).max() <= encoded
        assert np.abs(seen["final"] - golden[f"chunk{number}.final_latents"]).mean() <= final
        if number in (0, 3):
            assert np.abs(combined - golden[f"chunk{number}.combined_last_frame"].transpose(1, 2, 0)).max() <= pixels


def _reference_noise(count: int) -> NDArray[np.float32]:
    """Draw as tiny_pipeline_info.json says: the start once, then for each chunk masked and reference noise."""
    import torch

    generator = torch.Generator().manual_seed(415)
    noise = np.empty((count, 3, 4, 8, 8), np.float32)
    noise[:, 0] = torch.randn((1, 4, 1, 8, 8), generator=generator)[0, :, 0].numpy()
    for first in range(0, count, 8):
        for which in (1, 2):
            rows = noise[first : first + 8, which]
            rows[:] = torch.randn(rows.shape, generator=generator).numpy()
    return noise


def test_kept_pixels_are_the_faces_own(exported_tiny: Path) -> None:
    chunk = make_chunk(2)
    pixels = generate(make(exported_tiny), chunk)
    kept = chunk.mask.generate == 0
    assert np.abs(pixels[kept] - chunk.faces.pixels[kept] / 255).max() < 1e-6
    assert np.abs(pixels[~kept] - chunk.faces.pixels[~kept] / 255).mean() > 0.02


def test_the_mean_needs_no_noise_of_its_own(exported_tiny: Path) -> None:
    chunk, denoiser = make_chunk(2), make(exported_tiny, vae="mean")
    want = generate(denoiser, chunk)
    other = chunk.noise.copy()
    other[:, 1:] += 1
    assert (generate(denoiser, dataclasses.replace(chunk, noise=other)) == want).all()


def test_what_comes_in_stays_and_what_went_out_too(exported_tiny: Path) -> None:
    """Inputs may be read-only; bound memory is used again, but never memory that was given away."""
    denoiser, chunk = make(exported_tiny), make_chunk(3)
    copies = [array.copy() for array in chunk.arrays()]
    for array in chunk.arrays():
        array.flags.writeable = False
    first = generate(denoiser, chunk)
    kept = first.copy()
    generate(denoiser, make_chunk(3, seed=1))
    assert (first == kept).all()
    assert (generate(denoiser, chunk) == kept).all()
    for array, copy in zip(chunk.arrays(), copies, strict=True):
        assert (array == copy).all()


def test_two_threads_share_the_graphs(exported_tiny: Path) -> None:
    jobs = [(make(exported_tiny), make_chunk(4, seed)) for seed in range(2)]
    want = [generate(make(exported_tiny), chunk) for _, chunk in jobs]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            got = list(pool.map(lambda job: generate(*job), jobs))
            assert all((g == w).all() for g, w in zip(got, want, strict=True))
    one, two = (denoiser._graphs for denoiser, _ in jobs)
    assert one is not None
    assert two is not None
    assert one.unet is two.unet


def test_graphs_are_loaded_once_and_let_go(exported_tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lipsync_denoiser")
    # threads=2: sessions of its own.
    denoiser, chunk = make(exported_tiny, threads=2), make_chunk(1)
    assert not caplog.records
    want = generate(denoiser, chunk)
    assert np.abs(generate(denoiser, chunk) - want).max() <= TOLERANCE
    assert len(caplog.records) == 1
    assert denoiser._graphs is not None
    inner = weakref.ref(denoiser._graphs.unet.inner)
    denoiser.close()
    denoiser.close()
    gc.collect()
    assert inner() is None
    assert np.abs(generate(denoiser, chunk) - want).max() <= TOLERANCE
    assert len(caplog.records) == 2


def test_what_the_pipeline_reads(exported_tiny: Path) -> None:
    denoiser = make(exported_tiny, chunk_overlap=4)
    assert denoiser.feature_shape == (30, 64)
    assert denoiser.crop_size == SIDE
    assert denoiser.latent_shape == (3, 4, 8, 8)
    assert denoiser.max_frames == 8 + 7 * 4
    assert isinstance(denoiser, SameStartNoise)
    assert isinstance(denoiser, OfModel)
    assert isinstance(denoiser, Closable)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"guidance_scale": 1.0}, "Set precision=int8."),
        ({"chunk_overlap": 2}, "Set chunk_overlap=0, then precision=int8, then guidance_scale=1."),
    ],
)
@pytest.mark.parametrize("error", [NoMemoryError("unet.onnx ran out of memory.", "Close it."), MemoryError()])
def test_running_out_of_memory_says_what_to_turn(
    options: dict[str, Any], cure: str, error: Exception, exported_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(latentsync_onnx, "sample", fail)
    with pytest.raises(BackendError, match="latentsync-onnx ran out of memory on CPUExecutionProvider") as caught:
        generate(make(exported_tiny, **options), make_chunk(1))
    assert caught.value.cure == cure


def test_other_errors_keep_their_kind(exported_tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(latentsync_onnx, "sample", fail)
    with pytest.raises(RuntimeError, match="something else"):
        generate(make(exported_tiny), make_chunk(1))


def test_without_noise_there_is_no_start(exported_tiny: Path) -> None:
    chunk = make_chunk(1)
    with pytest.raises(BackendError, match="no noise"):
        make(exported_tiny).generate(chunk.faces, chunk.mask, chunk.audio, None)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"chunk_overlap": 8}, SettingsError, "not less than the 8 frames"),
        ({"provider": "npu"}, SettingsError, "no provider 'npu'"),
    ],
)
def test_what_does_not_fit_is_an_error_at_once(
    options: dict[str, Any], kind: type[LipsyncError], text: str, exported_tiny: Path
) -> None:
    with pytest.raises(kind, match=text):
        make(exported_tiny, **options)


def test_a_graph_that_is_missing_is_an_error_at_once(exported_tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "model"
    shutil.copytree(exported_tiny, root)
    (root / "onnx" / "float32" / "vae_decoder.onnx").unlink()
    with pytest.raises(WeightsError, match="lacks the graph vae_decoder"):
        make(root)


def test_crops_are_as_large_as_the_graphs_take(exported_tiny: Path, tmp_path: Path) -> None:
    """A model may be exported at another resolution than its description's."""
    root = tmp_path / "model"
    shutil.copytree(exported_tiny, root)
    record = root / "onnx" / "float32" / "export.json"
    record.write_text(record.read_text().replace('"resolution": 64', '"resolution": 128'))
    denoiser = make(root)
    assert denoiser.crop_size == 128
    assert denoiser.latent_shape == (3, 4, 16, 16)


@pytest.mark.parametrize(("scale", "halves"), [(1.0, 1), (1.5, 2)])
def test_all_the_step_loop_changes_is_latents_and_timestep(
    scale: float, halves: int, exported_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[tuple[str, int]] = []
    real = Session.bind

    def bind(self: Session, *arguments: Any) -> Any:
        binding = real(self, *arguments)
        inner = binding.put
        monkeypatch.setattr(binding, "put", lambda name, a: (put.append((name, len(a))), inner(name, a))[1])
        return binding

    monkeypatch.setattr(Session, "bind", bind)
    generate(make(exported_tiny, steps=2, guidance_scale=scale), make_chunk(2))
    step = [("latents", halves), ("timestep", 1)]
    assert put == [("fixed", halves), ("audio", 2 * halves), *step, *step]


def test_the_registry_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipsync_core.registry._present", lambda module: module != "onnxruntime")
    (entry,) = [entry for entry in discover().entries if entry.spec.name == "latentsync-onnx"]
    assert entry.state is State.MISSING
    assert 'pip install "lipsync-core[onnx]"' in entry.detail


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "onnx", "safetensors", "transformers"):
            raise ModuleNotFoundError(f"{name} is not to be imported", name=name)

sys.meta_path.insert(0, Refuse())
import numpy as np
from lipsync_core import landmarks as lm
from lipsync_core.backends import StageKind
from lipsync_core.registry import discover
from lipsync_core.types import AlignedFaces, AudioBlock, FaceTrack, MouthMask

def make(kind, name):
    registry = discover()
    entry = registry.find(kind, name)
    options = registry.options_model(entry).model_validate({"model": sys.argv[1], "threads": 1} | more[name])
    return registry.create(entry, options)

more = {"whisper-onnx": {}, "latentsync-onnx": {"steps": 2}}
whisper, latentsync = make(StageKind.AUDIO, "whisper-onnx"), make(StageKind.DENOISER, "latentsync-onnx")
draw = np.random.default_rng(0)
sound = [AudioBlock(0, draw.standard_normal(16_000, np.float32) / 10)]
(features,) = whisper.encode(sound, times=np.arange(4) / 25)
track = FaceTrack(0, np.tile(np.eye(2, 3), (4, 1, 1)), np.ones(4, bool), np.zeros((4, lm.COUNT, 2), np.float32), 64)
faces = AlignedFaces(track, draw.integers(0, 256, (4, 64, 64, 3), np.uint8))
noise = draw.standard_normal((4, 3, 4, 8, 8), np.float32)
made = latentsync.generate(faces, MouthMask(np.ones((4, 64, 64), np.float32)), features, noise).pixels
assert np.isfinite(made).all() and made.std() > 0.01
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "diffusers", "onnx", "safetensors", "transformers"}, loaded
assert "onnxruntime" in loaded
print("alone")
"""


def test_no_torch_in_the_process(exported_tiny: Path, tmp_path: Path) -> None:
    """Graphs and descriptions are enough: the weights are not even there."""
    root = tmp_path / "model"
    root.mkdir()
    shutil.copy(exported_tiny / "model.json", root)
    shutil.copytree(exported_tiny / "onnx", root / "onnx")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, str(root)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("alone\n", "", 0)
