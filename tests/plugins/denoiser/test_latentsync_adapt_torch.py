"""Adapting a small model to one speaker: that it learns, what it may not look at, and what it writes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")

from lipsync_core.errors import InputError  # noqa: E402
from lipsync_core.models.folder import ModelFolder  # noqa: E402
from lipsync_core.models.tensors_torch import read_tensors  # noqa: E402
from lipsync_core.progress import Silent  # noqa: E402
from lipsync_core.stages import Adaptable  # noqa: E402
from lipsync_core.types import AlignedFaces, AudioFeatures, Fit  # noqa: E402
from lipsync_denoiser.latentsync import adapt_torch  # noqa: E402
from lipsync_denoiser.latentsync.adapt_torch import Adaptation  # noqa: E402
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder  # noqa: E402
from lipsync_denoiser.latentsync.checkpoint_torch import load_unet  # noqa: E402
from lipsync_denoiser.latentsync.footage import REFERENCE_GAP, gather  # noqa: E402
from lipsync_denoiser.latentsync_torch import LatentSyncOptions, LatentSyncTorch  # noqa: E402

from .small_latentsync import TOKENS, LowerHalf, Speaker, config, write  # noqa: E402

CPU = torch.device("cpu")
MOTION = {"motion": {"heads": 2, "max_frames": 8, "resolutions": [1]}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write(tmp_path_factory.mktemp("models") / "small")


def adapt(model: Path, out: Path, source: Speaker, steps: int = 30, seed: int = 0) -> tuple[Fit, list[int]]:
    out.mkdir()
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(model), device="cpu"))
    assert isinstance(denoiser, Adaptable)
    told: list[int] = []
    fit = denoiser.adapt(
        source,
        LowerHalf(),
        out,
        steps=steps,
        seed=seed,
        progress=Silent(),
        report=lambda step, psnr: told.append(step),
    )
    return fit, told


def adaptation(model: Path, **changes: object) -> Adaptation:
    folder = ModelFolder.open(model)
    parts = folder.config
    unet = load_unet(parts.unet, folder.path(parts.unet.weights), torch.float32, CPU, strict=True)
    coder = Autoencoder.load(parts.autoencoder, folder.path(parts.autoencoder.weights), torch.float32, CPU, batch=4)
    return Adaptation(parts, unet, coder, gather(Speaker(), LowerHalf(), parts), 0)


def test_it_learns_the_speaker_and_changes_only_the_unet_by_low_rank(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapt_torch, "CHECK_EVERY", 20)
    monkeypatch.setattr(adapt_torch, "RANK", 3)
    out = tmp_path / "adapted"
    fit, told = adapt(model, out, Speaker(), steps=40)
    assert told == [0, 20, 40]
    assert fit.after > fit.before + 0.5
    assert fit.step in (20, 40)
    old, new = ModelFolder.open(model), ModelFolder.open(out)
    assert new.config.name == "small-adapted"
    coder = old.config.autoencoder.weights
    assert new.path(coder).read_bytes() == old.path(coder).read_bytes()
    before, after = (read_tensors(folder.path("unet.safetensors")) for folder in (old, new))
    assert before.keys() == after.keys()
    changed = 0
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        if torch.equal(after[name], tensor):
            continue
        changed += 1
        difference = (after[name].double() - tensor.double()).flatten(1)
        values = torch.linalg.svdvals(difference)
        # What is beyond the rank is the rounding to float16.
        assert values[3:].square().sum() < 0.02 * values.square().sum() + 1e-6 * difference.numel()
    assert changed > 10


def test_what_it_writes_runs(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapted"
    adapt(model, out, Speaker(), steps=2)
    source = Speaker()
    denoiser = LatentSyncTorch(LatentSyncOptions(model=str(out), device="cpu", steps=2, guidance_scale=1))
    faces = AlignedFaces(source.track[:3], source.pixels[:3])
    audio = AudioFeatures(0, np.zeros((3, TOKENS, TOKENS * 8), np.float32))
    assert denoiser.latent_shape is not None
    noise = np.zeros((3, *denoiser.latent_shape), np.float32)
    made = denoiser.generate(faces, LowerHalf().mask(faces), audio, noise)
    assert np.isfinite(made.pixels).all()


def test_a_seed_gives_the_same_weights(model: Path, tmp_path: Path) -> None:
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        adapt(model, tmp_path / str(number), Speaker(), steps=4, seed=seed)
        weights.append((tmp_path / str(number) / "unet.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_where_nothing_gets_better_the_model_stays_as_it_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Adaptation, "check", lambda self: 20.0)
    fit, _ = adapt(model, tmp_path / "same", Speaker(), steps=3)
    assert fit == Fit(20.0, 20.0, 0)
    assert "stays as it was" in caplog.text
    before, after = (read_tensors(folder / "unet.safetensors") for folder in (model, tmp_path / "same"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_what_is_checked_and_kept_is_a_share_of_what_was_learnt(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_torch, "CHECK_EVERY", 10)
    told: dict[float, list[float]] = {0.0: [], 1.0: []}
    for share, scores in told.items():
        monkeypatch.setattr(adapt_torch, "STRENGTH", share)
        adaptation(model).run(20, Silent(), lambda step, psnr, scores=scores: scores.append(psnr))  # type: ignore[misc]
    before = told[0.0][0]
    assert told[0.0] == pytest.approx([before] * 3, abs=1e-3)
    assert told[1.0][0] == pytest.approx(before)
    assert told[1.0][2] > before + 0.1


def test_chunks_are_frames_that_follow_each_other(tmp_path: Path) -> None:
    learner = adaptation(write(tmp_path / "motion", config(unet=config().unet.model_dump() | MOTION)))
    footage = learner._footage
    frames = footage.frames.copy()
    frames[20:] += 100  # another run, a hundred frames later
    learner._footage = dataclasses.replace(footage, frames=frames)
    size = learner._frames
    assert size > 1
    starts = learner._starts(size).tolist()
    assert len(starts) > 10
    assert not {*range(21 - size, 20)} & {*starts}


def test_references_are_never_near_their_target_and_never_held_back(model: Path) -> None:
    task = adaptation(model)
    footage, rng = task._footage, np.random.default_rng(0)
    for row in [*footage.learnt, *footage.unseen]:
        for _ in range(5):
            reference = task._reference(rng, int(row))
            assert reference in footage.learnt
            assert abs(footage.frames[reference] - footage.frames[row]) >= REFERENCE_GAP


@pytest.mark.parametrize(
    ("processor", "fast"), [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx512_bf16": False}, False)]
)
def test_products_in_bfloat16_are_used_where_the_processor_has_them(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    assert adapt_torch.has_bfloat16(CPU) is fast


def test_an_older_torch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert adapt_torch.has_bfloat16(CPU) is False


def test_the_loss_is_that_of_the_velocity_of_either_prediction(tmp_path: Path) -> None:
    """Both kinds of prediction, and models whose frames see each other, have a loss with a gradient."""
    kinds = {
        "v": config(),
        "epsilon": config(scheduler={}),
        "moves": config(unet=config().unet.model_dump() | MOTION),
    }
    for name, parts in kinds.items():
        task = adaptation(write(tmp_path / name, parts))
        parameters = adapt_torch.add_adapters(task._unet, 2, 0)
        loss = task.loss(1, 0)
        assert torch.isfinite(loss)
        gradients = torch.autograd.grad(loss, parameters)
        assert sum(float(g.abs().sum()) for g in gradients[1::2]) > 0


def test_too_little_to_learn_from_is_an_input_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frames show a face"):
        adapt(model, tmp_path / "none", Speaker(20))


def test_out_of_memory_has_a_cure(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lipsync_core.errors import BackendError

    def fail(self: Adaptation, *arguments: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(Adaptation, "run", fail)
    with pytest.raises(BackendError, match="ran out of memory on cpu as it adapted"):
        adapt(model, tmp_path / "out", Speaker())
