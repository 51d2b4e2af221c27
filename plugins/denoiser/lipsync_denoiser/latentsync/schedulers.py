"""Denoising steps in NumPy: DDIM, and DPM-Solver++ (2M) with the settings diffusers has by default.

Latents are x = a·clean + s·noise with a² + s² = 1, and a² is the running product of 1 − β at that timestep. Both
samplers only scale and add, so a scheduler is made for one number of steps and its `step` is plain arithmetic.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import SettingsError
from lipsync_core.models.folder import SchedulerPart

NumpyScheduler = Literal["ddim", "dpmsolver++"]
Latents = NDArray[np.float32]

# DPM-Solver++ divides by a, which is 0 at the last timestep of a zero-terminal-SNR schedule: diffusers' stand-in for
# a² there, the smallest float16.
_ALMOST_ZERO: Final = 2.0**-24


class Scheduler(Protocol):
    """Steps of one chunk, in order; the latents start as standard normal noise."""

    timesteps: list[int]

    def step(self, index: int, prediction: Latents, latents: Latents) -> Latents:
        """Return the latents of the next timestep, new, from those of `timesteps[index]` and the U-Net's prediction."""


def make_scheduler(name: NumpyScheduler, part: SchedulerPart, steps: int) -> Scheduler:
    """Return a scheduler for one chunk of a model trained as `part` says.

    Raises: `SettingsError` where the model's schedule has too few timesteps for `steps`.
    """
    return Ddim(part, steps) if name == "ddim" else DpmSolver(part, steps)


class Ddim:
    """Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2020), eta 0, as FACTS §3 has it."""

    def __init__(self, part: SchedulerPart, steps: int) -> None:
        alphas = alphas_cumprod(part)
        self.timesteps = _timesteps(part, steps, part.train_timesteps // steps)
        self._velocity = part.prediction == "v_prediction"
        stride = part.train_timesteps // steps
        last = 1.0 if part.set_alpha_to_one else float(alphas[0])
        self._alphas = [float(alphas[t]) for t in self.timesteps]
        self._next = [float(alphas[t - stride]) if t >= stride else last for t in self.timesteps]

    def step(self, index: int, prediction: Latents, latents: Latents) -> Latents:
        """Take the clean latents and the noise apart and put them together for the next timestep."""
        signal, noise = _scales(self._alphas[index])
        clean = _clean(latents, prediction, signal, noise, self._velocity)
        epsilon = signal * prediction + noise * latents if self._velocity else prediction
        signal, noise = _scales(self._next[index])
        result: Latents = signal * clean + noise * epsilon
        return result


class DpmSolver:
    """Lu et al., "DPM-Solver++" (2022), the second-order multistep solver: midpoint, first order at both ends."""

    def __init__(self, part: SchedulerPart, steps: int) -> None:
        alphas = alphas_cumprod(part).astype(np.float64)
        if part.zero_terminal_snr:
            alphas[-1] = _ALMOST_ZERO
        self.timesteps = _timesteps(part, steps, part.train_timesteps // (steps + 1), skipped=1)
        self._velocity = part.prediction == "v_prediction"
        self._scales = [_scales(alphas[t]) for t in self.timesteps] + [(1.0, 0.0)]  # ends without noise
        self._earlier: Latents | None = None

    def step(self, index: int, prediction: Latents, latents: Latents) -> Latents:
        """Go along the exact solution of the linear part; the rest is drawn through the last two clean latents."""
        (signal, noise), (next_signal, next_noise) = self._scales[index], self._scales[index + 1]
        clean = _clean(latents, prediction, signal, noise, self._velocity)
        # With λ = log(a / s) and h its growth over a step: e^−h, which is 0 where the step ends without noise.
        decay = (signal * next_noise) / (noise * next_signal)
        aim = clean
        if self._earlier is not None and index + 1 < len(self.timesteps):
            before, here, after = (np.log(a / s) for a, s in self._scales[index - 1 : index + 2])
            ratio = float((after - here) / (here - before))
            aim = clean + (0.5 * ratio) * (clean - self._earlier)
        self._earlier = clean
        result: Latents = (next_noise / noise) * latents + (next_signal * (1 - decay)) * aim
        return result


def alphas_cumprod(part: SchedulerPart) -> NDArray[np.float32]:
    """Return a² of every timestep, float32 [train_timesteps]."""
    count = part.train_timesteps
    if part.beta_schedule == "scaled_linear":
        betas = np.linspace(part.beta_start**0.5, part.beta_end**0.5, count, dtype=np.float32) ** 2
    else:
        betas = np.linspace(part.beta_start, part.beta_end, count, dtype=np.float32)
    alphas: NDArray[np.float32] = np.cumprod(1 - betas, dtype=np.float32)
    if part.zero_terminal_snr:
        # Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), algorithm 1: the roots are
        # shifted so that the last is 0, then stretched so that the first is what it was.
        roots = np.sqrt(alphas)
        shifted = roots - roots[-1]
        shifted *= roots[0] / shifted[0]
        alphas = shifted * shifted
    return alphas


def _clean(latents: Latents, prediction: Latents, signal: float, noise: float, velocity: bool) -> Latents:
    """Return the clean latents that a prediction of the noise, or of the velocity a·noise − s·clean, comes to."""
    if velocity:
        return signal * latents - noise * prediction
    return np.divide(latents - noise * prediction, signal, dtype=np.float32)


def _scales(alpha: float) -> tuple[float, float]:
    """Return a and s of a²."""
    return float(alpha) ** 0.5, (1 - float(alpha)) ** 0.5


def _timesteps(part: SchedulerPart, steps: int, stride: int, skipped: int = 0) -> list[int]:
    """Return the timesteps, falling; `leading` lays them `stride` apart and leaves out the lowest `skipped`."""
    if part.spacing == "trailing":
        # Not more than asked for: rounding lets diffusers have one too many, at −1, for some numbers of steps.
        spread = np.arange(part.train_timesteps, 0, -part.train_timesteps / steps)[:steps]
        timesteps = np.round(spread).astype(int) - 1
    else:
        timesteps = np.arange(skipped, steps + skipped)[::-1] * stride + part.steps_offset
    result: list[int] = timesteps.tolist()
    if len(set(result)) < steps or result[0] >= part.train_timesteps:
        raise SettingsError(
            f"steps={steps} is more than this scheduler can lay out over the model's {part.train_timesteps} timesteps.",
            "Set fewer steps.",
        )
    return result
