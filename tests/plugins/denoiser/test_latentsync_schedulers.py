"""The NumPy schedulers: the reference's own numbers, and diffusers' schedulers step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core.errors import SettingsError
from lipsync_core.models.folder import SchedulerPart
from lipsync_denoiser.latentsync.schedulers import alphas_cumprod, make_scheduler

SHAPE = (1, 4, 3, 5, 5)
TRAINED: dict[str, dict[str, Any]] = {
    "latentsync": {},
    "velocity": {"prediction": "v_prediction"},
    "linear": {"beta_schedule": "linear", "steps_offset": 0, "set_alpha_to_one": True},
    "trailing": {"spacing": "trailing"},
    "pure noise": {"spacing": "trailing", "prediction": "v_prediction", "zero_terminal_snr": True},
    "few": {"train_timesteps": 60},
}


def part_of(name: str) -> SchedulerPart:
    return SchedulerPart.model_validate(TRAINED[name])


def normal(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def test_ddim_has_the_references_steps_and_alphas(shared_reference: Path) -> None:
    golden = json.loads((shared_reference / "ddim.json").read_text(encoding="utf-8"))
    for count, timesteps in golden["timesteps"].items():
        assert make_scheduler("ddim", SchedulerPart(), int(count)).timesteps == timesteps
    alphas = alphas_cumprod(SchedulerPart())
    assert alphas.dtype == np.float32
    assert np.abs(alphas - np.load(shared_reference / "ddim_alphas_cumprod.npy")).max() <= 1e-6


@pytest.mark.parametrize("name", ["ddim", "dpmsolver++"])
@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers with NumPy 2
def test_every_step_is_diffusers(name: Any, trained: str, steps: int) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("diffusers", reason="needs diffusers")
    from lipsync_denoiser.latentsync import sampler_torch

    part = part_of(trained)
    theirs = sampler_torch.make_scheduler(name, part)
    theirs.set_timesteps(steps)
    ours = make_scheduler(name, part, steps)
    assert ours.timesteps == theirs.timesteps.tolist()
    latents = normal(0)
    for index, timestep in enumerate(theirs.timesteps):
        prediction = normal(1 + index)
        before = latents.copy()
        want = theirs.step(torch.from_numpy(prediction), timestep, torch.from_numpy(latents)).prev_sample.numpy()
        got = ours.step(index, prediction, latents)
        assert got.dtype == np.float32
        assert (latents == before).all()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
        latents = want


@pytest.mark.parametrize("name", ["ddim", "dpmsolver++"])
def test_what_can_be_solved_by_hand(name: Any) -> None:
    """The probability flow of normal data only scales: noise of deviation 1 ends with the data's deviation."""
    spread, part = 0.5, SchedulerPart()
    alphas = alphas_cumprod(part)
    scheduler = make_scheduler(name, part, 50)
    start = latents = normal(0)
    for index, timestep in enumerate(scheduler.timesteps):
        alpha = float(alphas[timestep])
        latents = scheduler.step(index, latents * ((1 - alpha) ** 0.5 / (alpha * spread**2 + 1 - alpha)), latents)
    ratio = latents / start
    assert ratio.std() < 1e-3
    assert abs(float(ratio.mean()) / spread - 1) < 0.06


def test_pure_noise_ends_the_schedule_and_keeps_its_beginning() -> None:
    trained = alphas_cumprod(SchedulerPart())
    rescaled = alphas_cumprod(part_of("pure noise"))
    assert rescaled[-1] == 0
    assert rescaled[0] == pytest.approx(trained[0], abs=1e-6)
    assert (np.diff(rescaled) < 0).all()


@pytest.mark.parametrize("steps", [61, 103, 121])
def test_trailing_steps_are_as_many_as_asked_for(steps: int) -> None:
    """1000 / steps, added up in floating point, ends above 0 for these."""
    timesteps = make_scheduler("ddim", part_of("trailing"), steps).timesteps
    assert len(timesteps) == steps
    assert timesteps[-1] >= 0


@pytest.mark.parametrize(
    ("name", "trained", "steps"),
    [("ddim", "latentsync", 1000), ("ddim", "few", 61), ("dpmsolver++", "few", 60), ("ddim", "trailing", 1001)],
)
def test_more_steps_than_there_are_timesteps_is_an_error(name: Any, trained: str, steps: int) -> None:
    with pytest.raises(SettingsError, match=f"steps={steps} is more than"):
        make_scheduler(name, part_of(trained), steps)
