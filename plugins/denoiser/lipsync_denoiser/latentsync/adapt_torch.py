"""Adapting a model to one speaker: a low-rank change of the U-Net, fitted to the source's own frames.

The task is the model's own training (velocity or noise of masked latents, and the decoded picture), the data one clip.
What keeps it from learning the clip by heart, and the mouth from moving less: few steps, averaged and weakened weights,
a reference that is never near the target, true mouth shapes where the model takes shapes, and a part of the clip held
back, on which the best moment is chosen.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lipsync_core.models.folder import MODEL_FILE, ModelConfig, ModelFolder
from lipsync_core.models.tensors_torch import SAFE_SUFFIX, read_checkpoint, write_pickle, write_safetensors
from lipsync_core.progress import Progress
from lipsync_core.stages import Masker, SourceClip
from lipsync_core.types import Fit
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder
from lipsync_denoiser.latentsync.checkpoint_torch import load_unet
from lipsync_denoiser.latentsync.footage import REFERENCE_GAP, Footage, gather
from lipsync_denoiser.latentsync.lora_torch import add_adapters, merge_adapters, weakened
from lipsync_denoiser.latentsync.sampler_torch import Sampling, make_scheduler, sample
from lipsync_denoiser.latentsync.unet_torch import UNet3D, channels_last

_log = logging.getLogger(__name__)

RANK: Final = 64  # of 96 to 160 in `mini`, 320 to 1280 in LatentSync
RATE: Final = 1.5e-3
WARM_STEPS: Final = 10
AVERAGING: Final = 0.97  # of the adapters' running mean, once it has run for a while
STRENGTH: Final = 0.8  # share of what was learnt that is kept: the last of it is the clip by heart, and moves less
BATCH_FRAMES: Final = 8
PARTS: Final = 2  # of a batch, computed at once on a CPU
SHAPE_NOISE: Final = 0.12  # deviation added to measured shapes, as in the training of `mini`
SHIFT: Final = 0.015  # of the crop's side, at most: whole pixels, as anything else would blur what is learnt
GAIN: Final = 0.04  # deviation of brightness
OUTSIDE, INSIDE, MOUTH = 0.1, 1.0, 3.0  # weights in the loss: outside the mask, inside it, at the mouth
PIXEL_LOSS: Final = 2.0
FEW_STEPS: Final = 4  # of denoising: for these timesteps a model with trailing ones is trained most
FEW_ODDS: Final = (0.4, 0.2, 0.15, 0.1)  # how often each is drawn; the rest evenly from all
CHECK_EVERY: Final = 25
CHECK_FRAMES: Final = 16

Report = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pictures −1…1 [n, 3, S, S] and features [n, tokens, dim]; n = items · frames, frames varying fastest."""

    target: Tensor
    reference: Tensor
    features: Tensor


class Adaptation:
    """Fits one U-Net, in float32 on its device, to one clip."""

    def __init__(
        self, config: ModelConfig, unet: UNet3D, autoencoder: Autoencoder, footage: Footage, seed: int
    ) -> None:
        self._config, self._unet, self._autoencoder, self._footage = config, unet, autoencoder, footage
        self._seed = seed
        self._device = unet.conv_in.weight.device
        scheduler = make_scheduler("ddim", config.scheduler)
        self._alphas: Tensor = scheduler.alphas_cumprod.to(self._device)
        scheduler.set_timesteps(FEW_STEPS)
        self._few: Tensor = scheduler.timesteps
        self._keep = torch.from_numpy(footage.keep).to(self._device)[None, None]
        self._weight = self._weights(footage)
        step = config.autoencoder.downscale
        self._latent_weight = F.avg_pool2d(self._weight, step)
        self._latent_weight = self._latent_weight / self._latent_weight.mean()
        # A model whose frames see each other learns whole chunks; others learn more from single frames.
        moves = config.unet.motion is not None
        self._parts = 1 if moves or self._device.type != "cpu" else PARTS
        self._items, self._frames = (1, config.frames) if moves else (BATCH_FRAMES // self._parts, 1)

    def run(self, steps: int, progress: Progress, report: Report) -> Fit:
        """Fit for `steps`, and merge the adapters of the best moment.

        report: called with a step and the mouth's PSNR on the frames held back.
        """
        parameters = add_adapters(self._unet, RANK, self._seed)
        optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
        mean = [parameter.detach().clone() for parameter in parameters]
        best = [tensor.clone() for tensor in mean]
        before = score = self.check()
        best_step = 0
        report(0, before)
        size = self._parts * self._items * self._frames
        progress.start("Learning from the speaker", steps * size)
        with _plain_attention(self._device), self._workers(parameters) as gradients:
            for step in range(1, steps + 1):
                for group in optimiser.param_groups:
                    group["lr"] = RATE * min(1.0, step / WARM_STEPS) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
                for parameter, gradient in zip(parameters, gradients(step), strict=True):
                    parameter.grad = gradient
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                share = 1 - min(AVERAGING, (1 + step) / (10 + step))
                for average, parameter in zip(mean, parameters, strict=True):
                    average.lerp_(parameter.detach(), share)
                progress.advance(size)
                if step % CHECK_EVERY == 0 or step == steps:
                    kept = weakened(mean, STRENGTH)
                    with _holding(parameters, kept):
                        got = self.check()
                    report(step, got)
                    if got > score:
                        score, best_step, best = got, step, kept
        _put(parameters, best)
        merge_adapters(self._unet)
        return Fit(before, score, best_step)

    @contextmanager
    def _workers(self, parameters: list[nn.Parameter]) -> Iterator[Callable[[int], list[Tensor]]]:
        """Yield what returns the gradients at a step, computed in parts at once and then averaged.

        On a CPU each part has one thread: oneDNN's weight gradients spin at a barrier, and with two threads cost three
        times the processor's time.
        """

        def part(step: int, number: int) -> tuple[Tensor, ...]:
            return torch.autograd.grad(self.loss(step, number), parameters)

        if self._parts == 1:
            yield lambda step: list(part(step, 0))
            return
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(self._parts, initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def averaged(step: int) -> list[Tensor]:
                parts = pool.map(part, [step] * self._parts, range(self._parts))
                return [sum(several) / self._parts for several in zip(*parts, strict=True)]

            try:
                yield averaged
            finally:
                torch.set_num_threads(threads)

    def loss(self, step: int, part: int) -> Tensor:
        """Return the loss of one part of the batch drawn at a step."""
        rng = np.random.default_rng((self._seed, step, part))
        batch = self._draw(rng)
        random = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        clean, fixed = self._encode(batch)
        times = self._times(random)
        # One noise for all frames of a chunk, as in inference.
        noise = torch.randn(clean[:, :, :1].shape, generator=random).to(self._device).expand_as(clean)
        alpha = self._alphas[times][:, None, None, None, None]
        a, s = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = a * clean + s * noise
        with self._fast():
            predicted = self._unet(torch.cat([noisy, fixed], 1), times, batch.features).float()
        if self._config.scheduler.prediction == "v_prediction":
            wanted, found, trust = a * noise - s * clean, a * noisy - s * predicted, torch.ones_like(alpha)
        else:
            # Divided by a, an error of the noise grows without bounds: what it says of the picture counts by a.
            wanted, found, trust = noise, (noisy - s * predicted) / a.clamp_min(1e-3), a
        error: Tensor = ((predicted - wanted).square() * self._latent_weight).mean()
        return error + PIXEL_LOSS * self._pixel_error(found, batch.target, trust)

    @torch.no_grad()
    def check(self) -> float:
        """Return the mouth's PSNR (dB) on frames held back, each generated with a reference that is not near it."""
        footage = self._footage
        rows = footage.unseen[np.linspace(0, len(footage.unseen) - 1, CHECK_FRAMES).round().astype(int)]
        rows = np.unique(rows)
        rng = np.random.default_rng((self._seed, 0))
        references = [self._reference(rng, row) for row in rows]
        features = torch.from_numpy(footage.features[rows]).to(self._device)
        target = self._pictures(footage.pixels[rows])
        batch = _Batch(target, self._pictures(footage.pixels[references]), features)
        clean, fixed = self._encode(batch, frames=len(rows))
        random = torch.Generator().manual_seed(self._seed)
        start = torch.randn(clean[:, :, :1].shape, generator=random).to(self._device).expand_as(clean)
        sampling = Sampling(FEW_STEPS, 1.0, 1, window=self._config.frames, overlap=0)
        with self._fast():
            latents = sample(
                self._unet, make_scheduler("ddim", self._config.scheduler), start, fixed, features, sampling
            )
        found = self._autoencoder.decode(latents[0].transpose(0, 1)).clamp(-1, 1)
        error = (found - target)[:, :, *footage.mouth] / 2
        return float(-10 * error.square().mean().clamp_min(1e-9).log10())

    def _draw(self, rng: np.random.Generator) -> _Batch:
        footage = self._footage
        learnt, count = footage.learnt, self._items * self._frames
        if self._frames == 1:
            places = rng.choice(len(learnt), count, replace=len(learnt) < count)
        else:
            first = int(rng.choice(self._starts(count)))
            places = np.minimum(first + np.arange(count), len(learnt) - 1)
        rows = learnt[places]
        references = np.array([self._reference(rng, row) for row in rows])
        looks = [self._look(rng) for _ in range(self._items)]
        each = np.repeat(np.arange(self._items), self._frames)
        targets, others = (
            np.stack([looks[item](footage.pixels[row]) for item, row in zip(each, chosen, strict=True)])
            for chosen in (rows, references)
        )
        features = torch.from_numpy(self._features(rng, rows)).to(self._device)
        return _Batch(self._pictures(targets), self._pictures(others), features)

    def _starts(self, count: int) -> NDArray[np.int64]:
        """Return the places in `learnt` from which `count` frames follow each other; all where there is none."""
        learnt = self._footage.frames[self._footage.learnt]
        places = np.arange(max(1, len(learnt) - count + 1))
        whole = learnt[np.minimum(places + count - 1, len(learnt) - 1)] - learnt[places] == count - 1
        return places[whole] if whole.any() else places

    def _features(self, rng: np.random.Generator, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what the model hears of rows; measured shapes with noise, as the encoder's are never exact."""
        values = self._footage.features[rows]
        if not self._footage.measured:
            return values
        noise = rng.standard_normal(values.shape, np.float32) * np.float32(SHAPE_NOISE)
        # None where a token has no columns: zeros there are how it is told from the others.
        noisy: NDArray[np.float32] = values + noise * (values != 0)
        return noisy

    def _reference(self, rng: np.random.Generator, row: int) -> int:
        frames, learnt = self._footage.frames, self._footage.learnt
        far = learnt[np.abs(frames[learnt] - frames[row]) >= REFERENCE_GAP]
        return int(rng.choice(far))

    def _look(self, rng: np.random.Generator) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
        """Return one mild augmentation: moved by whole pixels, brighter or darker."""
        reach = round(SHIFT * self._config.resolution)
        down, right = rng.integers(-reach, reach + 1, 2)
        gain = np.exp(rng.normal(0.0, GAIN))

        def look(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
            rows, columns = (np.clip(np.arange(len(picture)) + by, 0, len(picture) - 1) for by in (down, right))
            moved = picture[rows][:, columns].astype(np.float32) * np.float32(gain)
            return np.asarray(np.clip(np.rint(moved), 0, 255), np.uint8)

        return look

    @torch.no_grad()
    def _encode(self, batch: _Batch, frames: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the target's latents [items, C, frames, h, w], and mask, masked face and reference likewise."""
        frames = frames or self._frames
        keep, step = self._keep, self._config.autoencoder.downscale
        parts = (batch.target, batch.target * keep, batch.reference)
        with self._fast():
            target, masked, reference = (_to_clips(self._autoencoder.encode(part, None), frames) for part in parts)
        mask = keep[:, :, None, ::step, ::step].expand(len(target), 1, frames, -1, -1)
        return target, torch.cat([mask, masked, reference], 1)

    def _pixel_error(self, latents: Tensor, pictures: Tensor, trust: Tensor) -> Tensor:
        """Return the weighted error of decoded latents and of its slopes at three sizes, as in training."""
        with self._fast():
            found = self._autoencoder.decode(latents.transpose(1, 2).flatten(0, 1))
        share = trust.flatten().repeat_interleave(self._frames)[:, None, None, None]
        error = (found.float() - pictures) * self._weight * share
        total = error.abs().mean()
        for _ in range(3):
            total = total + (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
            error = F.avg_pool2d(error, 2)
        return total

    def _times(self, random: torch.Generator) -> Tensor:
        count, most = self._items, self._config.scheduler.train_timesteps
        times = torch.randint(0, most, (count,), generator=random)
        if self._config.scheduler.spacing == "trailing":
            odds = torch.tensor([*FEW_ODDS, 1 - sum(FEW_ODDS)])
            kind = torch.multinomial(odds, count, replacement=True, generator=random)
            times = torch.where(kind < FEW_STEPS, torch.cat([self._few, self._few[:1]])[kind], times)
        return times.to(self._device)

    def _weights(self, footage: Footage) -> Tensor:
        weight = OUTSIDE + (INSIDE - OUTSIDE) * (1 - self._keep)
        weight[:, :, *footage.mouth] = MOUTH
        return weight / weight.mean()

    def _pictures(self, pixels: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def _fast(self) -> AbstractContextManager[object]:
        """Return a context that computes in bfloat16 where that is faster."""
        if has_bfloat16(self._device):
            return torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False)
        return nullcontext()


def adapt_model(
    folder: ModelFolder,
    device: torch.device,
    source: SourceClip,
    masker: Masker,
    out: Path,
    *,
    steps: int,
    seed: int,
    progress: Progress,
    report: Report,
) -> Fit:
    """Fit the model of `folder` to a source and write it into `out`, adapters merged; see `stages.Adaptable`."""
    config = folder.config
    unet_file, autoencoder_file = folder.path(config.unet.weights), folder.path(config.autoencoder.weights)
    footage = gather(source, masker, config)
    unet = load_unet(config.unet, unet_file, torch.float32, device, strict=True)
    channels_last(unet)
    autoencoder = Autoencoder.load(config.autoencoder, autoencoder_file, torch.float32, device, batch=config.frames)
    fit = Adaptation(config, unet, autoencoder, footage, seed).run(steps, progress, report)
    if fit.step == 0:
        _log.warning("Adapting made nothing better on the frames held back, so the model stays as it was.")
    _write(folder, unet, out)
    return fit


def _write(folder: ModelFolder, unet: UNet3D, out: Path) -> None:
    """Write the model with another U-Net, in its own files' names, layout and precision."""
    config = folder.config
    adapted = config.model_copy(update={"name": f"{config.name}-adapted", "title": f"{config.title}, adapted"})
    for weights in config.weights:
        target = out / weights
        target.parent.mkdir(parents=True, exist_ok=True)
        if weights != config.unet.weights:
            shutil.copyfile(folder.path(weights), target)
            continue
        old = read_checkpoint(folder.path(weights))
        state = unet.state_dict()
        new = {name: state[name].to("cpu", tensor.dtype).contiguous() for name, tensor in old.tensors.items()}
        if target.suffix == SAFE_SUFFIX:
            write_safetensors(target, new, old.extra)
        else:
            write_pickle(target, {**old.extra, "state_dict": new})
    (out / MODEL_FILE).write_text(adapted.model_dump_json(indent=2) + "\n", encoding="utf-8")


def has_bfloat16(device: torch.device) -> bool:
    """Say whether products in bfloat16 are faster there than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without such products, bfloat16 is computed in float32 and converted; an older torch cannot tell.
    processor: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(processor.get("amx_bf16") or processor.get("avx512_bf16"))


def _plain_attention(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which attention on a CPU is written out: its own is slow backwards."""
    kernel: AbstractContextManager[object] = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    return kernel


def _to_clips(x: Tensor, frames: int) -> Tensor:
    """[n·frames, C, H, W] to [n, C, frames, H, W]."""
    return x.view(-1, frames, *x.shape[1:]).transpose(1, 2)


@torch.no_grad()
def _put(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@contextmanager
def _holding(parameters: list[nn.Parameter], values: list[Tensor]) -> Iterator[None]:
    """Have the adapters at `values` for a while."""
    own = [parameter.detach().clone() for parameter in parameters]
    _put(parameters, values)
    try:
        yield
    finally:
        _put(parameters, own)
