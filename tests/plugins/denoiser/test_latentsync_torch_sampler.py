"""Schedulers and the denoising loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")

from safetensors.torch import load_file  # noqa: E402

from lipsync_core.errors import SettingsError  # noqa: E402
from lipsync_core.models.folder import SchedulerPart  # noqa: E402
from lipsync_denoiser.latentsync.checkpoint_torch import load_unet  # noqa: E402
from lipsync_denoiser.latentsync.sampler_torch import Sampling, SchedulerName, make_scheduler, sample  # noqa: E402
from lipsync_denoiser.latentsync.unet_torch import UNet3D  # noqa: E402

from .tiny_latentsync import unet_part  # noqa: E402

torch.set_num_threads(1)  # networks this small lose more at barriers than they gain
TOLERANCE = 3e-3  # MANIFEST.json
DDIM = SchedulerPart()


@pytest.fixture(scope="module")
def unet(shared_reference: Path) -> UNet3D:
    part = unet_part()
    return load_unet(part, shared_reference / part.weights, torch.float32, torch.device("cpu"), strict=True)


@pytest.fixture(scope="module")
def golden(shared_reference: Path) -> dict[str, Any]:
    return load_file(shared_reference / "tiny_unet_loop.safetensors")


def run(
    unet: UNet3D, golden: dict[str, Any], steps: int, guidance_scale: float = 1.5, cache_interval: int = 1, **more: Any
) -> tuple[Any, list[Any]]:
    """Return the final latents and those after each step."""
    names = ("mask_latents", "masked_image_latents", "ref_latents")
    fixed, audio = torch.cat([golden[name] for name in names], 1), golden["audio_embeds"].float()
    seen: list[Any] = []
    scheduler = make_scheduler(more.pop("scheduler", "ddim"), DDIM)
    sampling = Sampling(steps, guidance_scale, cache_interval, **({"window": 16, "overlap": 0} | more))
    with torch.inference_mode():
        return sample(unet, scheduler, golden["init_latents"], fixed, audio, sampling, seen.append), seen


def difference(got: Any, want: Any) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max())


def test_ddim_has_the_references_steps_and_alphas(shared_reference: Path) -> None:
    golden = json.loads((shared_reference / "ddim.json").read_text(encoding="utf-8"))
    for count, timesteps in golden["timesteps"].items():
        scheduler = make_scheduler("ddim", DDIM)
        scheduler.set_timesteps(int(count))
        assert scheduler.timesteps.tolist() == timesteps
    alphas = np.load(shared_reference / "ddim_alphas_cumprod.npy")
    assert np.abs(scheduler.alphas_cumprod.numpy() - alphas).max() <= 1e-6
    assert abs(float(scheduler.final_alpha_cumprod) - golden["final_alpha_cumprod"]) <= 1e-6
    assert scheduler.init_noise_sigma == 1


def test_five_guided_steps_are_the_references(unet: UNet3D, golden: dict[str, Any]) -> None:
    final, seen = run(unet, golden, 5)
    assert difference(torch.stack(seen), golden["step_latents"]) <= TOLERANCE
    assert difference(final, golden["final_latents"]) <= TOLERANCE


def test_twenty_guided_steps_are_the_references(unet: UNet3D, golden: dict[str, Any]) -> None:
    assert difference(run(unet, golden, 20)[0], golden["variant.cfg20.final_latents"]) <= TOLERANCE


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_a_scale_of_one_or_less_is_no_guidance(unet: UNet3D, golden: dict[str, Any], scale: float) -> None:
    got, _ = run(unet, golden, 3, guidance_scale=scale)
    assert difference(got, golden["variant.nocfg3.final_latents"]) <= TOLERANCE


def test_deepcache_is_the_references(unet: UNet3D, golden: dict[str, Any]) -> None:
    got, seen = run(unet, golden, 8, cache_interval=3)
    assert difference(got, golden["variant.deepcache8.final_latents"]) <= TOLERANCE
    first = golden["variant.deepcache8.step_latents"]
    assert difference(torch.stack(seen[: len(first)]), first) <= TOLERANCE


def test_a_cached_step_runs_only_the_ends(
    unet: UNet3D, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("full", "shallow"):
        method = getattr(unet, name)
        monkeypatch.setattr(unet, name, lambda *a, name=name, method=method: (calls.append(name), method(*a))[1])
    run(unet, golden, 7, cache_interval=3)
    assert calls == ["full", "shallow", "shallow"] * 2 + ["full"]


class GaussianData:
    """In place of the U-Net: the exact prediction where latents are normal with deviation `SPREAD`."""

    SPREAD = 0.5

    def __init__(self) -> None:
        self.conv_in = torch.nn.Conv2d(1, 1, 1)
        self.alphas = make_scheduler("ddim", DDIM).alphas_cumprod

    def full(self, sample: Any, timesteps: Any, audio: Any) -> tuple[Any, Any]:
        alpha = self.alphas[timesteps.round().long()]
        return sample[:, :4] * ((1 - alpha).sqrt() / (alpha * self.SPREAD**2 + 1 - alpha)), None


@pytest.mark.parametrize("name", get_args(SchedulerName))
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers with NumPy 2
def test_every_scheduler_solves_what_can_be_solved_by_hand(name: Any) -> None:
    """The probability flow of normal data only scales: noise of deviation 1 ends with the data's deviation."""
    start = torch.randn(1, 4, 2, 3, 3)
    sampling = Sampling(steps=50, guidance_scale=1, cache_interval=1, window=16, overlap=0)
    got = sample(
        GaussianData(),  # type: ignore[arg-type]
        make_scheduler(name, DDIM),
        start,
        torch.zeros(1, 9, 2, 3, 3),
        torch.zeros(2, 1, 1),
        sampling,
    )
    assert got.dtype == torch.float32
    ratio = got / start
    assert ratio.std() < 1e-3
    assert abs(float(ratio.mean()) / GaussianData.SPREAD - 1) < 0.06


def test_zero_terminal_snr_needs_a_scheduler_that_knows_it() -> None:
    part = SchedulerPart.model_validate(
        {"zero_terminal_snr": True, "prediction": "v_prediction", "spacing": "trailing", "set_alpha_to_one": True}
    )
    scheduler = make_scheduler("ddim", part)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert scheduler.alphas_cumprod[-1] == 0
    assert scheduler.final_alpha_cumprod == 1
    with pytest.raises(SettingsError, match="deis"):
        make_scheduler("deis", part)


def test_windows_without_overlap_are_independent_chunks(unet: UNet3D, golden: dict[str, Any]) -> None:
    whole, _ = run(unet, golden, 3, window=3, overlap=0)
    for part in (slice(0, 3), slice(3, 6)):
        cut = {
            name: value[:, :, part] for name, value in golden.items() if name.endswith("latents") and "." not in name
        }
        alone, _ = run(unet, cut | {"audio_embeds": golden["audio_embeds"][part]}, 3)
        assert difference(whole[:, :, part], alone) <= 1e-4


def test_overlapping_windows_agree_better_than_chunks_do(unet: UNet3D, golden: dict[str, Any]) -> None:
    undivided, _ = run(unet, golden, 5)
    errors = []
    for overlap in (0, 2):
        got, seen = run(unet, golden, 5, window=3, overlap=overlap)
        assert len(seen) == 5
        errors.append(float((got - undivided).abs().mean()))
    assert errors[1] < errors[0]
