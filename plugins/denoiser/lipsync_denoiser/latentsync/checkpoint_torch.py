"""Weights from a file into the networks, with no difference between file and model passed over in silence."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from lipsync_core.errors import WeightsError
from lipsync_core.models.folder import UNetPart
from lipsync_core.models.tensors_torch import convert_tensors, read_checkpoint
from lipsync_denoiser.latentsync.unet_torch import UNet3D, blank_unet, build_unet, zero_start

_log = logging.getLogger(__name__)
_SHOWN = 3  # names in a message


def read(file: Path, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Return the tensors of a file in `dtype` on `device`; raises `WeightsError` where it holds none."""
    return convert_tensors(read_checkpoint(file), dtype, device)


def load_unet(part: UNetPart, file: Path, dtype: torch.dtype, device: torch.device, *, strict: bool) -> UNet3D:
    """Return the U-Net with the weights of `file`, in `dtype` on `device`, for inference.

    strict: a weight missing, left over or for other channel counts is a `WeightsError`. Otherwise the reference's
    rules hold, with a warning: left-over weights are ignored, `conv_in`, `conv_out` and the audio's `to_k` and `to_v`
    are dropped where they are for other channel counts, and what is missing starts as in training (FACTS §1).
    Any other shape that differs is an error either way.
    """
    unet = blank_unet(part, dtype)
    state = read(file, dtype, device)
    wanted = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    misfits = [name for name in wanted if name in state and tuple(state[name].shape) != wanted[name]]
    for name in misfits:
        if strict or not _may_be_dropped(name, tuple(state[name].shape), wanted[name]):
            raise WeightsError(
                f"{file} has {name} of shape {list(state[name].shape)}, but the model folder's description asks for "
                f"{list(wanted[name])}.",
                "Use the model.json that belongs to this checkpoint.",
            )
    for name in misfits:
        del state[name]
    check_names(file, state.keys(), wanted.keys(), strict=strict)
    if len(state.keys() & wanted.keys()) < len(wanted):
        unet = build_unet(part, dtype, device, seed=0)
        zero_start(unet)
    unet.load_state_dict(state, strict=False, assign=True)
    return unet.eval().requires_grad_(False)


def check_names(file: Path, found: Collection[str], wanted: Collection[str], *, strict: bool) -> None:
    """Raise `WeightsError`, or only warn, where a file lacks weights or has ones too many."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    parts = [f"lacks {_few(missing)}"] * bool(missing) + [f"has {_few(extra)} the model does not"] * bool(extra)
    if not parts:
        return
    cause = f"{file} {' and '.join(parts)}."
    if strict:
        raise WeightsError(cause, "Use the model.json that belongs to this checkpoint, or set strict=false.")
    _log.warning("%s Missing weights keep their start values.", cause)


def _few(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _may_be_dropped(name: str, got: tuple[int, ...], want: tuple[int, ...]) -> bool:
    if name == "conv_in.weight":
        return len(got) == len(want) and got[1] != want[1]
    if name.startswith("conv_out."):
        return got[0] != want[0]
    audio = name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    return audio and len(got) == len(want) and got[1] != want[1]
