"""From checkpoints to a model folder: `model.json`, float16 safetensors and the ONNX graphs that share them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from lipsync_core.models.export_torch import export_model
from lipsync_core.models.exported import Precision, export_folder
from lipsync_core.models.folder import MODEL_FILE, ModelFolder
from mini_training.generate import CHUNK
from mini_training.loop import averaged
from mini_training.recipe import AUTOENCODER, PASTE, REACH, SAMPLING, SCHEDULER, SIDE, SPREAD, UNET, ZOOM

# Beside the graphs, which read their constants from them: onnxruntime takes no file from outside a graph's folder.
_WEIGHTS: Final = export_folder(Path(), Precision.FLOAT32)


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
        "reference": "scene",
        "audio": {"kind": "mouth-shape", "reach": REACH, "spread": SPREAD},
        "autoencoder": {"kind": "patch", "weights": (_WEIGHTS / "autoencoder.safetensors").as_posix(), **AUTOENCODER},
        "unet": {**UNET, "weights": (_WEIGHTS / "unet.safetensors").as_posix()},
        "scheduler": SCHEDULER.model_dump(),
        "sampling": SAMPLING,
        "paste": PASTE,
        "preview": True,
    }


def export(autoencoder: Path, unet: Path, out: Path) -> int:
    """Write the model folder of two runs' averaged weights, with its graphs; return its size in bytes."""
    config = model_json()
    (out / _WEIGHTS).mkdir(parents=True, exist_ok=True)
    for part, run in (("autoencoder", autoencoder), ("unet", unet)):
        (out / config[part]["weights"]).write_bytes(save(_half(averaged(run))))  # `save_file` lets nobody else read it
    (out / MODEL_FILE).write_text(json.dumps(config, indent=2) + "\n")
    export_model(ModelFolder.open(out), Precision.FLOAT32, share=True, overwrite=True)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def _half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
