"""The denoising loop: schedulers, guidance, DeepCache, and overlapping windows. Figures: FACTS §3."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import diffusers
import torch
from torch import Tensor

from lipsync_core.errors import SettingsError
from lipsync_core.models.folder import SchedulerPart
from lipsync_denoiser.latentsync.chunks import fade, windows
from lipsync_denoiser.latentsync.unet_torch import UNet3D

SchedulerName = Literal["ddim", "dpmsolver++", "unipc", "deis", "euler", "heun", "pndm"]

# Those of diffusers that draw no noise of their own: a job's noise comes from its seed alone.
_CLASSES: Final[dict[SchedulerName, str]] = {
    "ddim": "DDIMScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
}


def make_scheduler(name: SchedulerName, part: SchedulerPart) -> Any:
    """Return diffusers' scheduler for a model trained as `part` says.

    Raises `SettingsError` where that scheduler cannot do what the model needs.
    """
    kind = getattr(diffusers, _CLASSES[name])
    accepted = inspect.signature(kind).parameters
    settings: dict[str, Any] = {
        "num_train_timesteps": part.train_timesteps,
        "beta_start": part.beta_start,
        "beta_end": part.beta_end,
        "beta_schedule": part.beta_schedule,
        "prediction_type": part.prediction,
        "timestep_spacing": part.spacing,
    }
    if part.zero_terminal_snr:
        if "rescale_betas_zero_snr" not in accepted:
            raise SettingsError(
                f"The scheduler {name} cannot start from pure noise, which this model was trained for.",
                "Use scheduler=ddim.",
            )
        settings["rescale_betas_zero_snr"] = True
    optional = {
        "steps_offset": part.steps_offset,
        "set_alpha_to_one": part.set_alpha_to_one,
        "clip_sample": False,
        "skip_prk_steps": True,
    }
    settings.update({key: value for key, value in optional.items() if key in accepted})
    return kind(**settings)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample.

    guidance_scale: 1 or less runs the conditional half alone. cache_interval: steps from one whole pass to the next,
    1 for no cache. window: frames the U-Net sees at once. overlap: frames two windows share.
    """

    steps: int
    guidance_scale: float
    cache_interval: int
    window: int
    overlap: int


class Predictor:
    """Predicts the noise in all frames of a chunk at one step; one is made for each chunk."""

    def __init__(self, unet: UNet3D, fixed: Tensor, audio: Tensor, sampling: Sampling) -> None:
        self._unet = unet
        self._dtype = unet.conv_in.weight.dtype
        self._guidance_scale = sampling.guidance_scale
        self._interval = sampling.cache_interval
        self._fixed = fixed.to(self._dtype)
        self._audio = audio.to(self._dtype)
        self._windows = windows(len(audio), sampling.window, sampling.overlap)
        self._weights = [torch.from_numpy(w).to(fixed.device) for w in fade(self._windows)]
        self._deep: list[Tensor | None] = [None] * len(self._windows)
        self._calls = 0

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Take and return float32 [1, 4, n, h, w]; where windows overlap their predictions are cross-faded."""
        whole = self._calls % self._interval == 0
        self._calls += 1
        if len(self._windows) == 1:
            return self._one(0, latents, timestep, whole)
        total = torch.zeros_like(latents)
        for number, (frames, weight) in enumerate(zip(self._windows, self._weights, strict=True)):
            total[:, :, frames] += self._one(number, latents[:, :, frames], timestep, whole) * weight[:, None, None]
        return total

    def _one(self, number: int, latents: Tensor, timestep: Tensor, whole: bool) -> Tensor:
        frames = self._windows[number]
        sample = torch.cat([latents.to(self._dtype), self._fixed[:, :, frames]], 1)
        audio = self._audio[frames]
        guided = self._guidance_scale > 1
        if guided:
            sample, audio = sample.repeat(2, 1, 1, 1, 1), torch.cat([torch.zeros_like(audio), audio])
        times = timestep.to(sample.device).expand(len(sample))
        deep = self._deep[number]
        if whole or deep is None:
            noise, deep = self._unet.full(sample, times, audio)
            if self._interval > 1:
                self._deep[number] = deep
        else:
            noise = self._unet.shallow(sample, times, audio, deep)
        noise = noise.float()
        if guided:
            unconditional, conditional = noise.chunk(2)
            noise = unconditional + self._guidance_scale * (conditional - unconditional)
        return noise


def sample(
    unet: UNet3D,
    scheduler: Any,
    start: Tensor,
    fixed: Tensor,
    audio: Tensor,
    sampling: Sampling,
    watch: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Return the denoised latents float32 [1, 4, n, h, w].

    start: standard normal of that shape. fixed: [1, 9, n, h, w], mask, masked-image and reference latents.
    audio: [n, tokens, width]; its zeros are what the unconditional half hears. watch: called after each step.
    """
    predict = Predictor(unet, fixed, audio, sampling)
    scheduler.set_timesteps(sampling.steps, device=start.device)
    latents: Tensor = start * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        noise = predict(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(noise, timestep, latents).prev_sample
        if watch is not None:
            watch(latents)
    return latents
