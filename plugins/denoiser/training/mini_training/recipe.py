"""What `mini` is made of, and who is held out: everything the steps of the training share."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lipsync_core.models.folder import SchedulerPart, UNetPart
from lipsync_denoiser.latentsync.patch_autoencoder_torch import PatchAutoencoder
from lipsync_denoiser.latentsync.sampler_torch import make_scheduler
from lipsync_face.fixed_mask import generate_area

# Every number the project reports is measured on these speakers; the audio net was not trained on them either.
HELD_OUT: Final = ("grid_s30", "grid_uC", "grid_uD", "ls_1")

SIDE: Final = 128  # px, of a crop
ZOOM: Final = 1.2  # of LatentSync's alignment, so that the mouth has more of the few pixels
ZOOM_CENTRE: Final = (0.5, 0.6)  # of the crop, what stays in place: chins stay inside the mask
FPS: Final = 25.0  # of the footage, and of the mouth shapes whatever the video's rate
REACH: Final = 2  # mouth shapes before and after a frame's own that the U-Net hears
SPREAD: Final = 1.0  # deviation to which the shapes heard are enlarged: that of the true ones
SHAPE_NUMBERS: Final = 8
TOKENS: Final = 2 * REACH + 1

LATENTS: Final = 16
DOWNSCALE: Final = 8
AUTOENCODER: Final[dict[str, Any]] = {
    "patch": DOWNSCALE,
    "latent_channels": LATENTS,
    "width": 96,
    "encoder_blocks": 1,
    "decoder_blocks": 2,
}
UNET: Final[dict[str, Any]] = {
    "weights": "unet.safetensors",
    "in_channels": 3 * LATENTS + 1,
    "out_channels": LATENTS,
    "block_out_channels": (96, 128, 160),
    "layers_per_block": 1,
    "attention_heads": 4,
    "cross_attention_dim": SHAPE_NUMBERS * TOKENS,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "audio_layer": True,
    "motion": None,
}
SCHEDULER: Final = SchedulerPart.model_validate(
    {"prediction": "v_prediction", "spacing": "trailing", "zero_terminal_snr": True, "set_alpha_to_one": True}
)
STEPS: Final = 4  # of denoising, that it is trained for
SAMPLING: Final[dict[str, Any]] = {"steps": STEPS, "guidance_scale": 1.0}
# What brought flicker and sharpness nearest to the source's (README, Results).
PASTE: Final[dict[str, Any]] = {
    "region": "mouth",
    "feather_eye_distances": 0.1,
    "sharpen": 1.4,
    "grain": 1.0,
    "light": 1.0,
    "colour": 1.0,
}
TIMESTEPS: Final = (999, 749, 499, 249)  # which these are, trailing


def make_autoencoder() -> PatchAutoencoder:
    """Return the autoencoder with the usual random start."""
    return PatchAutoencoder(**AUTOENCODER)


def unet_part(**changes: Any) -> UNetPart:
    """Return the U-Net's description."""
    # Not validated: `block_out_channels` has three levels here.
    return UNetPart.model_construct(**{**UNET, **changes})


def scheduler() -> Any:
    """Return the scheduler of inference."""
    return make_scheduler("ddim", SCHEDULER)


def alphas() -> Tensor:
    """Return each timestep's cumulative alpha, float32 [1000]; the last is 0."""
    table: Tensor = scheduler().alphas_cumprod
    return table


def keep_mask() -> Tensor:
    """Return float32 [1, 1, 128, 128]: 1 = keep this pixel."""
    return torch.from_numpy(1 - generate_area(SIDE))[None, None]


def tokens_of(shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return tokens float32 [n, 5, 40] of shapes [n, 5, 8], two frames before to two after.

    Token k holds its shape in columns 8k…8k + 7 and zeros elsewhere, so that each place in time has weights of its own.
    """
    tokens = np.zeros((len(shapes), TOKENS, TOKENS, SHAPE_NUMBERS), np.float32)
    place = np.arange(TOKENS)
    tokens[:, place, place] = shapes
    return tokens.reshape(len(shapes), TOKENS, -1)


def channels_last(module: nn.Module) -> None:
    """Lay convolution weights out with the channels innermost."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks this form
