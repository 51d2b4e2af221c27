"""How a chunk is laid out, whatever runs the networks: noise, windows, and whether the parts of a model fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import SettingsError, WeightsError
from lipsync_core.models.folder import ModelConfig
from lipsync_core.types import AlignedFaces
from lipsync_denoiser.latentsync.usual import UsualMouths

A_WHOLE_CHUNK: Final[Mapping[str, str]] = {
    "same_however_cut": "the frames of a chunk share normalisation and, with motion modules, attention"
}
"""What the conformance kit is to expect, as of LatentSync (FACTS §2: GroupNorm pools over the frames of a chunk)."""

START, MASKED, REFERENCE, NOISES = 0, 1, 2, 3  # what each frame's noise is for
AT_ONCE: Final = 4  # frames the autoencoder takes; all of a chunk cost as much time and twice the memory or more
WINDOWS: Final = 8  # in a chunk where windows overlap: longer chunks have fewer seams, and hold more frames


def latent_shape(config: ModelConfig) -> tuple[int, ...]:
    """Return the shape of one frame's noise: [3, C, S/8, S/8]."""
    side = config.resolution // config.autoencoder.downscale
    return NOISES, config.autoencoder.latent_channels, side, side


def longest_chunk(config: ModelConfig, overlap: int) -> int:
    """Return the frames of the longest chunk: one window, or several that overlap."""
    return config.frames + ((WINDOWS - 1) * (config.frames - overlap) if overlap else 0)


def check(config: ModelConfig, overlap: int) -> None:
    """Raise `WeightsError` where the parts of a model do not fit together, `SettingsError` where `overlap` does not."""
    _check_model(config)
    if overlap >= config.frames:
        raise SettingsError(
            f"chunk_overlap={overlap} is not less than the {config.frames} frames of a window.",
            "Set a smaller chunk_overlap.",
        )


def _check_model(config: ModelConfig) -> None:
    unet, latents, motion = config.unet, config.autoencoder.latent_channels, config.unet.motion
    wrong = ""
    if (unet.in_channels, unet.out_channels) != (3 * latents + 1, latents):
        wrong = (
            f"A U-Net of {unet.in_channels} input and {unet.out_channels} output channels does not fit "
            f"{latents} latent channels: it takes {3 * latents + 1} and gives {latents}."
        )
    elif unet.audio_layer and unet.cross_attention_dim != config.audio.width:
        wrong = (
            f"The U-Net takes audio of width {unet.cross_attention_dim}, but the encoder gives {config.audio.width}."
        )
    elif motion is not None and config.frames > motion.max_frames:
        wrong = f"A chunk of {config.frames} frames is longer than the {motion.max_frames} of the motion modules."
    elif config.resolution % config.autoencoder.downscale:
        wrong = f"A resolution of {config.resolution} px is no multiple of {config.autoencoder.downscale} px."
    if wrong:
        raise WeightsError(wrong, "Correct the model folder's model.json.")


def references(
    config: ModelConfig, faces: AlignedFaces, usual: UsualMouths | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return the references uint8 [k, S, S, 3] of a chunk, the rows [k] whose noise they have, and each frame's [n].

    usual: those of the scenes; where it is missing, for nobody looked at the source, a window's first frame stands in.
    """
    rows = np.arange(len(faces.pixels))
    if config.reference == "scene":
        if usual is not None:
            return usual.of(faces.track.start)[None], np.zeros(1, np.int64), np.zeros_like(rows)
        rows -= rows % config.frames
    seen, whose = np.unique(rows, return_inverse=True)
    return faces.pixels[seen], seen, whose


def windows(count: int, length: int, overlap: int) -> list[slice]:
    """Cover `count` frames with windows of `length` that share at least `overlap`; the last ends with the frames."""
    if count <= length:
        return [slice(0, count)]
    starts = [*range(0, count - length, length - overlap), count - length]
    return [slice(start, start + length) for start in starts]


def fade(cuts: list[slice]) -> list[NDArray[np.float32]]:
    """Return each window's weights, float32; they rise and fall in equal steps where windows share frames.

    The weights of every frame sum to 1.
    """
    raw: list[NDArray[np.float32]] = []
    for number, cut in enumerate(cuts):
        weight = np.ones(cut.stop - cut.start, np.float32)
        if number > 0 and (shared := cuts[number - 1].stop - cut.start) > 0:
            weight[:shared] *= np.arange(1, shared + 1) / np.float32(shared + 1)
        if number + 1 < len(cuts) and (shared := cut.stop - cuts[number + 1].start) > 0:
            weight[-shared:] *= np.arange(shared, 0, -1) / np.float32(shared + 1)
        raw.append(weight)
    total = np.zeros(cuts[-1].stop, np.float32)
    for cut, weight in zip(cuts, raw, strict=True):
        total[cut] += weight
    return [np.divide(weight, total[cut], dtype=np.float32) for cut, weight in zip(cuts, raw, strict=True)]
