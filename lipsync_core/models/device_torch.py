"""The device and the precision an option names. Imported only where PyTorch is wanted anyway."""

from __future__ import annotations

from typing import Final

import torch

from lipsync_core.errors import SettingsError

DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:1`, `mps`; `auto` is CUDA, else MPS, else the CPU.

    Raises: `SettingsError` where this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"{name!r} is no device.", "Use auto, cpu, cuda, cuda:1 or mps.") from error
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= here.get(device.type, 0):
        raise SettingsError(f"This machine has no device {name!r} that PyTorch can use.", "Use auto or cpu.")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision for `auto`, `float32`, `float16`, `bfloat16`; `auto` is float16 on CUDA, else float32."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[name]
