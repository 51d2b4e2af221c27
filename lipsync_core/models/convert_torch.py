"""`lipsync models convert`: the pickles of a model folder as safetensors, which load faster and cannot run anything."""

from __future__ import annotations

import json
from pathlib import Path

from lipsync_core.errors import WeightsError
from lipsync_core.models.folder import MODEL_FILE, ModelFolder
from lipsync_core.models.tensors_torch import SAFE_SUFFIX, read_checkpoint, write_safetensors

PARTS = ("audio", "autoencoder", "unet")


def convert(root: Path) -> list[tuple[Path, Path]]:
    """Write a `.safetensors` beside each pickle of a model folder and name it in `model.json`; return (old, new) pairs.

    The pickles stay. Values are not changed. Raises: `WeightsError` where the folder or a file cannot be used.
    """
    folder = ModelFolder.open(root)
    description = json.loads((root / MODEL_FILE).read_text(encoding="utf-8"))
    done = []
    for part in PARTS:
        weights = getattr(getattr(folder.config, part), "weights", None)
        if weights is None or Path(weights).suffix == SAFE_SUFFIX:
            continue
        old = folder.path(weights)
        new = old.with_suffix(SAFE_SUFFIX)
        checkpoint = read_checkpoint(old)
        write_safetensors(new, checkpoint.tensors, checkpoint.extra)
        description[part]["weights"] = Path(weights).with_suffix(SAFE_SUFFIX).as_posix()
        done.append((old, new))
    if done:
        _write(root / MODEL_FILE, description)
    return done


def _write(file: Path, description: object) -> None:
    temporary = file.with_name(f".{file.name}.partial")
    try:
        temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise WeightsError(f"{file} cannot be written: {error.strerror}.", "Make that folder writable.") from error
