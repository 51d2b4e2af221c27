"""The denoising loop over an exported U-Net: guidance and overlapping windows. Figures: FACTS §3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync_core.models.session_onnx import Session
from lipsync_denoiser.latentsync.chunks import fade, windows
from lipsync_denoiser.latentsync.schedulers import Latents, Scheduler


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample.

    guidance_scale: 1 or less runs the conditional half alone. window: frames the U-Net sees at once. overlap: frames
    two windows share.
    """

    guidance_scale: float
    window: int
    overlap: int


class _Window:
    """The U-Net on some frames of a chunk: all it is given but latents and timestep is bound once."""

    def __init__(self, unet: Session, fixed: Latents, audio: NDArray[np.float32], like: Latents, scale: float) -> None:
        self._scale = scale
        guided = scale > 1
        self._latents = np.empty((1 + guided, *like.shape[1:]), np.float32)
        self._binding = unet.bind("prediction", np.empty_like(self._latents))
        self._binding.put("fixed", np.repeat(fixed, 1 + guided, axis=0))
        self._binding.put("audio", np.concatenate([np.zeros_like(audio), audio]) if guided else audio)

    def __call__(self, latents: Latents, timestep: int) -> Latents:
        """Return the prediction; it is good until the next call."""
        self._latents[:] = latents
        self._binding.put("latents", self._latents)
        self._binding.put("timestep", np.array([timestep], np.float32))
        prediction = self._binding.run()
        if len(prediction) == 1:
            return prediction
        unconditional, conditional = prediction[:1], prediction[1:]
        guided: Latents = unconditional + self._scale * (conditional - unconditional)
        return guided


def sample(
    unet: Session,
    scheduler: Scheduler,
    start: Latents,
    fixed: Latents,
    audio: NDArray[np.float32],
    sampling: Sampling,
) -> Latents:
    """Return the denoised latents float32 [1, C, n, h, w].

    start: standard normal of that shape. fixed: [1, 2·C + 1, n, h, w], mask, masked-image and reference latents.
    audio: [n, tokens, width]; its zeros are what the unconditional half hears.
    """
    cuts = windows(len(audio), sampling.window, sampling.overlap)
    parts = [_Window(unet, fixed[:, :, cut], audio[cut], start[:, :, cut], sampling.guidance_scale) for cut in cuts]
    weights = [weight[:, None, None] for weight in fade(cuts)]
    latents = start
    for index, timestep in enumerate(scheduler.timesteps):
        if len(parts) == 1:
            prediction = parts[0](latents, timestep)
        else:
            prediction = np.zeros_like(latents)
            for cut, part, weight in zip(cuts, parts, weights, strict=True):
                prediction[:, :, cut] += part(latents[:, :, cut], timestep) * weight
        latents = scheduler.step(index, prediction, latents)
    return latents
