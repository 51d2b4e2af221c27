"""The denoiser `latentsync-onnx`: LatentSync, or any model folder of that kind, exported and run by ONNX Runtime.

What `latentsync_torch` does, with graphs in place of networks and NumPy for the rest; no torch in the process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lipsync_core.errors import BackendError
from lipsync_core.memory import give_back
from lipsync_core.models.exported import GraphName, Precision, open_exported
from lipsync_core.models.session_onnx import NoMemoryError, OnnxOptions, Runtime, Session
from lipsync_core.stages import SourceClip
from lipsync_core.types import AlignedFaces, AudioFeatures, GeneratedFaces, MouthMask
from lipsync_denoiser.latentsync.chunks import (
    A_WHOLE_CHUNK,
    MASKED,
    REFERENCE,
    START,
    check,
    latent_shape,
    longest_chunk,
    references,
)
from lipsync_denoiser.latentsync.sampler_onnx import Sampling, sample
from lipsync_denoiser.latentsync.schedulers import NumpyScheduler, make_scheduler
from lipsync_denoiser.latentsync.usual import UsualMouths

_log = logging.getLogger(__name__)
Pictures = NDArray[np.float32]


class LatentSyncOnnxOptions(OnnxOptions):
    """Options of `latentsync-onnx`."""

    steps: int = Field(20, ge=1, le=1000, description="denoising steps; fewer are faster and coarser")
    guidance_scale: float = Field(
        1.5, ge=0, description="how much more the sound counts than its absence; 1 or less is off and halves the work"
    )
    scheduler: NumpyScheduler = Field("ddim", description="how steps are taken; ddim is LatentSync's own")
    chunk_overlap: int = Field(
        0, ge=0, description="frames two windows share, cross-faded in latents at each step; 0 as LatentSync does"
    )
    vae: Literal["sample", "mean"] = Field(
        "sample", description="encode faces to a drawn latent, as LatentSync does, or to the mean, the same each time"
    )


@dataclass(frozen=True, slots=True)
class _Graphs:
    unet: Session
    encoder: Session
    decoder: Session


class LatentSyncOnnx:
    """Denoises chunks of latents under the new sound. Graphs are loaded at the first chunk and kept until `close`."""

    same_start_noise = True
    expected_failures: ClassVar[Mapping[str, str]] = A_WHOLE_CHUNK

    def __init__(self, options: LatentSyncOnnxOptions) -> None:
        """Settle provider and export; raises a `LipsyncError` where these or the options do not fit."""
        self._options = options
        self._runtime = Runtime(options)
        self._exported = open_exported(options.model, self._runtime.precisions)
        resolution = self._exported.record.resolution
        config = self._exported.folder.config.model_copy(update={"resolution": resolution})
        check(config, options.chunk_overlap)
        for name in (GraphName.UNET, GraphName.VAE_ENCODER, GraphName.VAE_DECODER):
            # Looked for now, loaded at the first chunk: a missing file is to be known before the analysis of the video.
            self._exported.path(name)
        self._config = config
        self._graphs: _Graphs | None = None
        self._usual: UsualMouths | None = None
        self.model_name = config.name
        self.feature_shape = config.audio.feature_shape
        self.crop_size: int | None = resolution
        self.crop_zoom = config.zoom
        self.latent_shape: tuple[int, ...] | None = latent_shape(config)
        self.max_frames = longest_chunk(config, options.chunk_overlap)

    def prepare(self, source: SourceClip) -> None:
        """Take the references of the scenes, where the model is made for such."""
        self._usual = UsualMouths(source) if self._config.reference == "scene" else None

    def generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32] | None
    ) -> GeneratedFaces:
        """Generate one chunk, at its own length.

        noise: [n, 3, C, S/8, S/8], standard normal: the start of the denoising, which LatentSync has equal for all
        frames, then what the latents of the masked and of the whole face are drawn with. The pixels are not clamped:
        they may lie a little outside 0…1. Raises `BackendError` where the provider fails or memory runs out.
        """
        if noise is None:
            raise BackendError("latentsync-onnx was given no noise.", "Pass noise of its latent_shape.")
        try:
            return GeneratedFaces(self._generate(faces, mask, audio, noise))
        except (NoMemoryError, MemoryError) as error:
            raise self._out_of_memory() from error

    def close(self) -> None:
        """Let the graphs go."""
        self._graphs = self._usual = None
        give_back()  # glibc keeps up to half of a large model's memory

    def _generate(
        self, faces: AlignedFaces, mask: MouthMask, audio: AudioFeatures, noise: NDArray[np.float32]
    ) -> Pictures:
        options, config, graphs = self._options, self._config, self._loaded()
        face = _pictures(faces.pixels)
        keep = 1 - mask.generate[:, None]
        draw = options.vae == "sample"
        masked = self._encode(graphs.encoder, face * keep, noise[:, MASKED] if draw else None)
        shown, seen, whose = references(config, faces, self._usual)
        reference = self._encode(graphs.encoder, _pictures(shown), noise[seen, REFERENCE] if draw else None)[whose]
        step = config.autoencoder.downscale
        fixed = np.concatenate(
            [keep[:, :, ::step, ::step], masked, reference], 1
        )  # ::step is the nearest pixel's value
        latents = sample(
            graphs.unet,
            make_scheduler(options.scheduler, config.scheduler, options.steps),
            _to_clip(noise[:, START]),
            _to_clip(fixed),
            audio.values,
            Sampling(options.guidance_scale, window=config.frames, overlap=options.chunk_overlap),
        )
        decoded = _each(graphs.decoder, latents=latents[0].swapaxes(0, 1))[0]
        half = np.float32(0.5)
        pixels = (decoded * (1 - keep) + face * keep) * half + half
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))

    def _encode(self, encoder: Session, pictures: Pictures, noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return latents [n, C, S/8, S/8] of pictures [n, 3, S, S] in −1…1; without noise the mean."""
        part = self._config.autoencoder
        mean, deviation = _each(encoder, pixels=pictures)
        latents = mean if noise is None else mean + deviation * noise
        return (latents - np.float32(part.shift_factor)) * np.float32(part.scaling_factor)

    def _loaded(self) -> _Graphs:
        if self._graphs is None:
            _log.info(
                "Loading %s in %s with %s",
                self._config.title,
                self._exported.record.precision,
                self._runtime.provider.name,
            )
            self._graphs = _Graphs(
                *(
                    self._runtime.open(self._exported, name)
                    for name in (GraphName.UNET, GraphName.VAE_ENCODER, GraphName.VAE_DECODER)
                )
            )
        return self._graphs

    def _out_of_memory(self) -> BackendError:
        options, provider = self._options, self._runtime.provider
        exact = self._exported.record.precision is Precision.FLOAT32
        cures = [
            ("chunk_overlap=0", options.chunk_overlap > 0),
            (f"precision={'float16' if provider.half else 'int8'}", exact),
            ("guidance_scale=1", options.guidance_scale > 1),
        ]
        open_cures = [cure for cure, is_open in cures if is_open]
        cure = f"Set {', then '.join(open_cures)}." if open_cures else "Use a smaller model or another provider."
        return BackendError(f"latentsync-onnx ran out of memory on {provider.name}.", cure)


def _each(graph: Session, **batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Run a graph that has one input on one frame after the other: as fast as all at once, in a fraction of the memory.

    Returns its outputs, [n, …].
    """
    ((name, frames),) = batch.items()
    runs = [graph.run(**{name: np.ascontiguousarray(frames[row : row + 1])}) for row in range(len(frames))]
    return [np.concatenate(outputs) for outputs in zip(*runs, strict=True)]


def _pictures(pixels: NDArray[np.uint8]) -> Pictures:
    """[n, S, S, 3] uint8 to [n, 3, S, S] in −1…1."""
    return pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C") / np.float32(127.5) - 1


def _to_clip(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, C, h, w] to [1, C, n, h, w]."""
    return x.swapaxes(0, 1)[None]
