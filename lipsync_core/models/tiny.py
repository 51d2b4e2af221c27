"""`lipsync models tiny`: a complete random model of tiny dimensions, in the published layout.

The core knows no architecture, so the tensors come from the backends that do. The class named by the `factory` of
each backend below has a class method that takes the part of `model.json` and a seed and returns float32 tensors on the
CPU, which depend on nothing but these two:

    audio     whisper-torch     random_whisper(part: AudioPart, seed: int) -> {"dims", "model_state_dict"}
    denoiser  latentsync-torch  random_unet(part: UNetPart, seed: int) -> dict[str, Tensor]
    denoiser  latentsync-torch  random_autoencoder(part: AutoencoderPart, seed: int) -> dict[str, Tensor]

Keys are those of the published checkpoints.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from lipsync_core.backends import StageKind
from lipsync_core.errors import WeightsError
from lipsync_core.models.folder import MODEL_FILE, ModelConfig, read_config
from lipsync_core.models.tensors_torch import write_pickle, write_safetensors
from lipsync_core.registry import Registry, discover

CONFIG = read_config(files(__package__) / "tiny.json")


def write_tiny(root: Path, seed: int = 0, registry: Registry | None = None) -> None:
    """Write the tiny model into `root`; see `write_random`."""
    write_random(root, CONFIG, seed, registry)


def write_random(root: Path, config: ModelConfig, seed: int = 0, registry: Registry | None = None) -> None:
    """Write a model of a LatentSync's kind and any dimensions into `root`, which is made where there is none.

    Raises: `WeightsError` if `root` holds a model already, `BackendError` where a backend it needs is missing.
    """
    if (root / MODEL_FILE).exists():
        raise WeightsError(f"{root} holds a model already.", "Choose another folder.")
    registry = registry or discover()
    whisper = _backend(registry, StageKind.AUDIO, "whisper-torch")
    latentsync = _backend(registry, StageKind.DENOISER, "latentsync-torch")
    write_pickle(root / config.whisper.weights, whisper.random_whisper(config.whisper, seed))
    unet = latentsync.random_unet(config.unet, seed)
    write_pickle(root / config.unet.weights, {"global_step": 0, "state_dict": unet})
    write_safetensors(root / config.autoencoder.weights, latentsync.random_autoencoder(config.autoencoder, seed))
    (root / MODEL_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _backend(registry: Registry, kind: StageKind, name: str) -> Any:
    return registry.factory(registry.find(kind, name))
