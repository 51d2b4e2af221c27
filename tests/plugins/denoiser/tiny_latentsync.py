"""The tiny networks of the golden vectors, as a model folder describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lipsync_core.models.folder import AutoencoderPart, ModelConfig, UNetPart

UNET: dict[str, Any] = {
    "weights": "tiny_unet.safetensors",
    "block_out_channels": (32, 64, 32, 32),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "norm_num_groups": 16,
    "motion": {},
}
AUTOENCODER: dict[str, Any] = {
    "weights": "tiny_vae.safetensors",
    "block_out_channels": (16, 16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
AUDIO: dict[str, Any] = {"kind": "whisper", "weights": "tiny_whisper.safetensors", "layers": 2, "width": 64, "heads": 2}


def unet_part(**changes: Any) -> UNetPart:
    return UNetPart.model_validate(UNET | changes)


def autoencoder_part() -> AutoencoderPart:
    return AutoencoderPart.model_validate(AUTOENCODER)


def model_config(**changes: Any) -> ModelConfig:
    config = {
        "name": "tiny",
        "title": "The golden vectors' networks",
        "licence": "none",
        "resolution": 64,
        "frames": 8,
        "audio": AUDIO,
        "autoencoder": AUTOENCODER,
        "unet": UNET,
        "scheduler": {},
    }
    return ModelConfig.model_validate(config | changes)


def write_folder(root: Path, weights: Path | None = None, **changes: Any) -> Path:
    """Write `model.json`, with links to the weights beside it where there are any."""
    model = model_config(**changes)
    root.mkdir(exist_ok=True)
    (root / "model.json").write_text(model.model_dump_json(), encoding="utf-8")
    for name in (UNET["weights"], AUTOENCODER["weights"], AUDIO["weights"]) if weights else ():
        (root / name).symlink_to(weights / name)
    return root
