"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# One thread each, before any library starts its own: on two busy cores they would wait for each other.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Tests assert results, not times: a busy machine may take as long as it needs.
hypothesis.settings.register_profile("lipsync", deadline=None)
hypothesis.settings.load_profile("lipsync")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder ../shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real talking-head clips."""
    return _folder("data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Golden vectors made by running LatentSync."""
    return _folder("reference")


@pytest.fixture(scope="session")
def exported_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random tiny model as a model folder: its weights, and its graphs in float32."""
    _need_export()
    from lipsync_core.models.tiny import write_tiny

    root = tmp_path_factory.mktemp("exported") / "tiny"
    write_tiny(root)
    return _export(root)


@pytest.fixture(scope="session")
def exported_golden(shared_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks of the golden vectors as a model folder: their weights, and graphs in float32 and float16."""
    _need_export()
    from lipsync_core.models.folder import MODEL_FILE
    from lipsync_core.models.tiny import CONFIG

    root = tmp_path_factory.mktemp("exported") / "golden"
    root.mkdir()
    parts = {}
    for name, file in (("audio", "tiny_whisper"), ("autoencoder", "tiny_vae"), ("unet", "tiny_unet")):
        weights = f"{file}.safetensors"
        parts[name] = getattr(CONFIG, name).model_copy(update={"weights": weights})
        (root / weights).symlink_to(shared_reference / weights)
    (root / MODEL_FILE).write_text(CONFIG.model_copy(update=parts).model_dump_json(), encoding="utf-8")
    return _export(root, "float16")


def _need_export() -> None:
    for module in ("torch", "diffusers", "safetensors", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"exporting needs {module} (extras torch and onnx)")
    import torch

    torch.set_num_threads(1)  # networks this small lose more at barriers than they gain


def _export(root: Path, *more: str) -> Path:
    from lipsync_core.models.export_torch import export_model
    from lipsync_core.models.exported import Precision
    from lipsync_core.models.folder import ModelFolder

    for precision in ("float32", *more):
        export_model(ModelFolder.open(root), Precision(precision))
    return root
