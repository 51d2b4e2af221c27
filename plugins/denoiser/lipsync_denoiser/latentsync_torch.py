"""The denoiser `latentsync-torch`: LatentSync 1.5 and 1.6, or any model folder of that kind, in PyTorch.

Arithmetic as FACTS §2, 3 and 5: each chunk's faces go through the autoencoder twice (masked and whole), the U-Net
denoises under the new sound, and what comes back is laid over the kept part of the face.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lipsync_core.errors import BackendError
from lipsync_core.models.device_torch import pick_device, pick_dtype
from lipsync_core.models.folder import AutoencoderPart, ModelFolder, UNetPart
from lipsync_core.models.known import open_model
from lipsync_core.progress import Progress
from lipsync_core.stages import Masker, SourceClip
from lipsync_core.types import AlignedFaces, AudioFeatures, Fit, GeneratedFaces, MouthMask
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder, blank_autoencoder
from lipsync_denoiser.latentsync.checkpoint_torch import load_unet
from lipsync_denoiser.latentsync.chunks import (
    A_WHOLE_CHUNK,
    AT_ONCE,
    MASKED,
    REFERENCE,
    START,
    check,
    latent_shape,
    longest_chunk,
    references,
)
from lipsync_denoiser.latentsync.sampler_torch import Sampling, SchedulerName, make_scheduler, sample
from lipsync_denoiser.latentsync.unet_torch import UNet3D, build_unet, channels_last, initialise
from lipsync_denoiser.latentsync.usual import UsualMouths

if TYPE_CHECKING:
    from lipsync_core.models.graph_torch import GraphSource

_log = logging.getLogger(__name__)


class LatentSyncOptions(BaseModel):
    """Options of `latentsync-torch`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("auto", description="auto: the best that is here; a known model, or the path of a model folder")
    steps: int = Field(20, ge=1, le=1000, description="denoising steps; fewer are faster and coarser")
    guidance_scale: float = Field(
        1.5, ge=0, description="how much more the sound counts than its absence; 1 or less is off and halves the work"
    )
    scheduler: SchedulerName = Field("ddim", description="how steps are taken; ddim is LatentSync's own")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="precision of the networks; auto is float16 on CUDA and float32 elsewhere"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps")
    cache: Literal["none", "deepcache"] = Field(
        "none", description="deepcache reuses the U-Net's inner layers between steps: about half the work, or less"
    )
    cache_interval: int = Field(3, ge=2, description="steps from one whole pass to the next with deepcache")
    chunk_overlap: int = Field(
        0, ge=0, description="frames two windows share, cross-faded in latents at each step; 0 as LatentSync does"
    )
    vae: Literal["sample", "mean"] = Field(
        "sample", description="encode faces to a drawn latent, as LatentSync does, or to the mean, the same each time"
    )
    vae_slicing: bool = Field(False, description="encode and decode one frame at a time, not four: less memory")
    attention_slicing: int | None = Field(
        None, ge=1, description="frames whose attention is computed at once; fewer need less memory"
    )
    cpu_offload: bool = Field(False, description="keep U-Net and autoencoder in main memory while they rest")
    compile: bool = Field(False, description="compile the U-Net with torch.compile: minutes once, then faster")
    channels_last: bool = Field(True, description="keep channels innermost in memory")
    strict: bool = Field(True, description="a weight missing or left over in the U-Net's checkpoint is an error")


@dataclass(frozen=True, slots=True)
class _Model:
    unet: UNet3D
    autoencoder: Autoencoder


class LatentSyncTorch:
    """Denoises chunks of latents under the new sound. Weights are read at the first chunk and kept until `close`."""

    same_start_noise = True
    expected_failures: ClassVar[Mapping[str, str]] = A_WHOLE_CHUNK

    def __init__(self, options: LatentSyncOptions) -> None:
        """Read the model's description; raises `WeightsError` or `SettingsError` where it or the options do not fit."""
        self._options = options
        self._folder = open_model(options.model)
        config = self._folder.config
        check(config, options.chunk_overlap)
        self.model_name = config.name
        self._device = pick_device(options.device)
        self._dtype = pick_dtype(options.dtype, self._device)
        # Looked for now, read at the first chunk: a missing file is to be known before the analysis of the video.
        self._unet_file = self._folder.path(config.unet.weights)
        self._autoencoder_file = self._folder.path(config.autoencoder.weights)
        self._model: _Model | None = None
        self._usual: UsualMouths | None = None
        self.feature_shape = config.audio.feature_shape
        self.crop_size: int | None = config.resolution
        self.crop_zoom = config.zoom
        self.latent_shape: tuple[int, ...] | None = latent_shape(config)
        self.max_frames = longest_chunk(config, options.chunk_overlap)

    @classmethod
    def random_unet(cls, part: UNetPart, seed: int) -> dict[str, Tensor]:
        """Return random weights of the U-Net, float32; see `lipsync_core.models.tiny`."""
        return dict(build_unet(part, torch.float32, "cpu", seed).state_dict())

    @classmethod
    def random_autoencoder(cls, part: AutoencoderPart, seed: int) -> dict[str, Tensor]:
        """Return random weights of the autoencoder, float32; see `lipsync_core.models.tiny`."""
        net = blank_autoencoder(part, torch.float32)
        initialise(net, seed)
        return dict(net.state_dict())

    @classmethod
    def export_graphs(cls, folder: ModelFolder) -> Iterator[GraphSource]:
        """Yield the networks of a model folder; see `lipsync_core.models.export_torch`."""
        from lipsync_denoiser.latentsync.export_torch import latentsync_graphs  # noqa: PLC0415 - only this needs onnx

        check(folder.config, overlap=0)
        yield from latentsync_graphs(folder)

    def adapt(
        self,
        source: SourceClip,
        masker: Masker,
        folder: Path,
        *,
        steps: int,
        seed: int,
        progress: Progress,
        report: Callable[[int, float], None],
    ) -> Fit:
        """Fit the U-Net to one speaker; see `lipsync_core.stages.Adaptable`.

        Raises `InputError` where the source shows or says too little, `BackendError` where memory runs out.
        """
        from lipsync_denoiser.latentsync.adapt_torch import adapt_model  # noqa: PLC0415 - only this trains

        try:
            return adapt_model(
                self._folder,
                self._device,
                source,
                masker,
                folder,
                steps=steps,
                seed=seed,
                progress=progress,
                report=report,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BackendError(
                f"latentsync-torch ran out of memory on {self._device} as it adapted.",
                "Use a smaller model or another device.",
            ) from error

    def prepare(self, source: SourceClip) -> None:
        """Take the references of the scenes, where the model is made for such."""
        self._usual = UsualMouths(source) if self._folder.config.reference == "scene" else None

    def generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32] | None
    ) -> GeneratedFaces:
        """Generate one chunk.

        noise: [n, 3, 4, S/8, S/8], standard normal: the start of the denoising, which LatentSync has equal for all
        frames, then what the latents of the masked and of the whole face are drawn with. The pixels are not clamped:
        they may lie a little outside 0…1. Raises `BackendError` where memory runs out.
        """
        if noise is None:
            raise BackendError("latentsync-torch was given no noise.", "Pass noise of its latent_shape.")
        try:
            with torch.inference_mode():
                return GeneratedFaces(self._generate(faces, mask, audio, noise))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise self._out_of_memory() from error

    def close(self) -> None:
        """Let the weights go."""
        self._model = self._usual = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        options, config, model = self._options, self._folder.config, self._loaded()
        face = self._pictures(faces.pixels)
        keep = 1 - self._put(mask.generate)[:, None]
        drawn = self._put(noise)
        draw = options.vae == "sample"
        shown, seen, whose = references(config, faces, self._usual)
        with self._at_work(model.autoencoder.net):
            masked = model.autoencoder.encode(face * keep, drawn[:, MASKED] if draw else None)
            reference = model.autoencoder.encode(self._pictures(shown), drawn[seen, REFERENCE] if draw else None)[whose]
        step = config.autoencoder.downscale
        fixed = torch.cat([keep[:, :, ::step, ::step], masked, reference], 1)  # ::step is the nearest pixel's value
        sampling = Sampling(
            steps=options.steps,
            guidance_scale=options.guidance_scale,
            cache_interval=options.cache_interval if options.cache == "deepcache" else 1,
            window=config.frames,
            overlap=options.chunk_overlap,
        )
        with self._at_work(model.unet):
            latents = sample(
                model.unet,
                make_scheduler(options.scheduler, config.scheduler),
                _to_clip(drawn[:, START]),
                _to_clip(fixed),
                self._put(audio.values),
                sampling,
            )
        with self._at_work(model.autoencoder.net):
            decoded = model.autoencoder.decode(latents[0].transpose(0, 1))
        pixels = (decoded * (1 - keep) + face * keep) / 2 + 0.5
        out: NDArray[np.float32] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return out

    def _loaded(self) -> _Model:
        if self._model is None:
            options, config = self._options, self._folder.config
            home = torch.device("cpu") if options.cpu_offload else self._device
            _log.info("Loading %s in %s on %s", config.title, self._dtype, self._device)
            unet = load_unet(config.unet, self._unet_file, self._dtype, home, strict=options.strict)
            autoencoder = Autoencoder.load(
                config.autoencoder,
                self._autoencoder_file,
                self._dtype,
                home,
                batch=1 if options.vae_slicing else AT_ONCE,
            )
            if options.channels_last:
                channels_last(unet)
                channels_last(autoencoder.net)
            unet.slice_attention(options.attention_slicing)
            if options.compile:
                unet.compile_passes()
            self._model = _Model(unet, autoencoder)
        return self._model

    def _pictures(self, pixels: NDArray[np.uint8]) -> Tensor:
        return self._put(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, device=self._device)  # a copy: the array may be read-only

    @contextmanager
    def _at_work(self, module: nn.Module) -> Iterator[None]:
        """Have `module` on the device; with `cpu_offload` only while it is needed there."""
        if not self._options.cpu_offload:
            yield
            return
        module.to(self._device)
        try:
            yield
        finally:
            module.to("cpu")
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _out_of_memory(self) -> BackendError:
        options = self._options
        cures = [
            ("vae_slicing=true", not options.vae_slicing),
            ("attention_slicing=1", options.attention_slicing != 1),
            ("cpu_offload=true", not options.cpu_offload and self._device.type != "cpu"),
            ("chunk_overlap=0", options.chunk_overlap > 0),
            ("dtype=float16", self._dtype == torch.float32 and self._device.type != "cpu"),
            ("dtype=bfloat16", self._dtype == torch.float32 and self._device.type == "cpu"),
            ("guidance_scale=1", options.guidance_scale > 1),
        ]
        open_cures = [cure for cure, is_open in cures if is_open]
        cure = f"Set {', then '.join(open_cures)}." if open_cures else "Use a smaller model or another device."
        return BackendError(f"latentsync-torch ran out of memory on {self._device}.", cure)


def is_out_of_memory(error: Exception) -> bool:
    """Say whether memory ran out: only CUDA has a class of its own for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in ("out of memory", "can't allocate memory"))


def _to_clip(x: Tensor) -> Tensor:
    """[n, C, h, w] to [1, C, n, h, w]."""
    return x.transpose(0, 1)[None]
