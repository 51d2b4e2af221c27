"""From checkpoints to a model folder: `model.json` and float16 safetensors, under the names the backends read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mini_training.generate import CHUNK
from mini_training.loop import averaged
from mini_training.recipe import AUTOENCODER, REACH, SCHEDULER, SIDE, UNET, ZOOM


def model_json() -> dict[str, Any]:
    """Return what `model.json` says."""
    return {
        "format": 1,
        "name": "mini",
        "title": "mini, a preview model of 128 px",
        "licence": "Apache-2.0; trained on GRID (CC-BY-4.0) and LatentSync's demo clip 2 (Apache-2.0)",
        "resolution": SIDE,
        "geometry": "latentsync",
        "zoom": ZOOM,
        "mask": "fixed-mask",
        "frames": CHUNK,
        "audio": {"kind": "mouth-shape", "reach": REACH},
        "autoencoder": {"kind": "patch", "weights": "autoencoder.safetensors", **AUTOENCODER},
        "unet": UNET,
        "scheduler": SCHEDULER.model_dump(),
    }


def export(autoencoder: Path, unet: Path, out: Path) -> int:
    """Write the model folder of two runs' averaged weights; return its size in bytes."""
    out.mkdir(parents=True, exist_ok=True)
    config = model_json()
    for part, run in (("autoencoder", autoencoder), ("unet", unet)):
        (out / config[part]["weights"]).write_bytes(save(_half(averaged(run))))  # `save_file` lets nobody else read it
    (out / "model.json").write_text(json.dumps(config, indent=2) + "\n")
    return sum(file.stat().st_size for file in out.iterdir())


def _half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
