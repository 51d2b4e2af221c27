"""The models that `lipsync run --adapt` made and keeps: a model folder for each video and model."""

from __future__ import annotations

import shutil
from pathlib import Path

from lipsync_core.models.folder import MODEL_FILE
from lipsync_core.paths import cache_dir


def folder() -> Path:
    """Return where they are; it may not exist yet."""
    return cache_dir() / "adapted"


def usage() -> tuple[int, int]:
    """Return the number of adapted models and their size in bytes, ONNX graphs included."""
    models = _models()
    sizes = [file.stat().st_size for model in models for file in model.rglob("*") if file.is_file()]
    return len(models), sum(sizes)


def clear() -> int:
    """Delete them and return how many there were."""
    models = _models()
    for model in models:
        shutil.rmtree(model)
    return len(models)


def _models() -> list[Path]:
    return sorted(file.parent for file in folder().glob(f"*/{MODEL_FILE}"))
