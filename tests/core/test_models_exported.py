"""Finding the ONNX graphs of a model, and what is said where there are none."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lipsync_core.errors import WeightsError
from lipsync_core.models import exported
from lipsync_core.models.exported import RECORD_FILE, Exported, GraphName, Precision, export_folder, open_exported
from lipsync_core.models.folder import MODEL_FILE, ModelFolder
from lipsync_core.models.store import sha256

FLOAT32, FLOAT16, INT8 = Precision.FLOAT32, Precision.FLOAT16, Precision.INT8


def record(**changes: Any) -> dict[str, Any]:
    graph = {"file": "unet.onnx", "sha256": "0" * 64, "nodes": 1, "nodes_before": 2, "difference": 0.0, "scale": 1.0}
    whole = {"model": "tiny", "precision": "float32", "resolution": 64, "opset": 20, "versions": {}, "sources": {}}
    return whole | {"graphs": {"unet": graph}} | changes


def put(model: Path, precision: Precision, text: str | None = None) -> Path:
    """Write a model folder with an export of that precision."""
    root = export_folder(model, precision)
    root.mkdir(parents=True)
    (model / MODEL_FILE).write_bytes((files("lipsync_core.models") / "latentsync-1.5.json").read_bytes())
    (root / RECORD_FILE).write_text(json.dumps(record(precision=precision)) if text is None else text)
    return root


def test_the_first_precision_that_is_there(tmp_path: Path) -> None:
    put(tmp_path, INT8)
    put(tmp_path, FLOAT16)
    assert open_exported(str(tmp_path), [FLOAT32, FLOAT16, INT8]).record.precision == FLOAT16
    assert open_exported(str(tmp_path), [INT8]).root == export_folder(tmp_path, INT8)


def test_a_graph_is_there_or_named(tmp_path: Path) -> None:
    root = put(tmp_path, FLOAT32)
    found = open_exported(str(tmp_path), [FLOAT32])
    with pytest.raises(WeightsError, match="lacks the graph unet"):
        found.path(GraphName.UNET)
    (root / "unet.onnx").touch()
    assert found.path(GraphName.UNET) == root / "unet.onnx"
    with pytest.raises(WeightsError, match="lacks the graph whisper"):
        found.path(GraphName.WHISPER)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        (json.dumps(record(precision="float8")), "float32"),
        (
            json.dumps(record(graphs={"unet": record()["graphs"]["unet"] | {"file": "../x"}})),
            "not a plain relative path",
        ),
    ],
)
def test_a_record_that_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    put(tmp_path, FLOAT32, text)
    with pytest.raises(WeightsError, match=rf"{RECORD_FILE} cannot be used: .*{why}.* Delete .* and export again"):
        open_exported(str(tmp_path), [FLOAT32])


def test_no_export_and_nothing_to_export_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "find_spec", lambda name: None if name in ("torch", "onnx") else object())
    with pytest.raises(
        WeightsError, match=r"The model x is not exported to ONNX \(float32\), and exporting needs torch, onnx\."
    ) as caught:
        open_exported("x", [FLOAT32])
    assert "lipsync export x -o FOLDER" in caught.value.cure


def test_weights_that_are_not_there_but_in_graphs(tmp_path: Path) -> None:
    put(tmp_path, FLOAT32)
    with pytest.raises(
        WeightsError, match=r"lacks latentsync_unet.pt. It holds ONNX graphs, which --profile onnx runs"
    ):
        ModelFolder.open(tmp_path).path("latentsync_unet.pt")


def test_graphs_of_other_weights_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "unet.pt"
    weights.write_bytes(b"first")
    root = put(tmp_path, FLOAT32, json.dumps(record(sources={"unet.pt": sha256(weights)})))
    later = (root / RECORD_FILE).stat().st_mtime + 5
    os.utime(weights, (later, later))
    open_exported(str(tmp_path), [FLOAT32])
    weights.write_bytes(b"other")
    os.utime(weights, (later, later))
    with pytest.raises(WeightsError, match=r"was exported from another unet.pt than the one that is there"):
        open_exported(str(tmp_path), [FLOAT32])


def test_exports_of_a_folder(tmp_path: Path) -> None:
    assert list(exported.exports(tmp_path)) == []
    put(tmp_path, INT8)
    put(tmp_path, FLOAT32)
    assert list(exported.exports(tmp_path)) == [FLOAT32, INT8]
    assert isinstance(open_exported(str(tmp_path), [FLOAT32]), Exported)
